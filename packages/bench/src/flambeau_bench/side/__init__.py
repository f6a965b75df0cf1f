"""What a side (program) of a comparison with peers needs; runs in the interpreter of the side.

That interpreter may lack flambeau and torch. So these modules need the standard library, numpy, and
torch only where their names say so; the bench copies them to where the side can import them.

The bench starts a side as ``python PROGRAM JOB``, with a job as JSON (see ``Job``), and writes
requests to its stdin, a JSON object per line. The side answers each with a JSON object per line on
its stdout:

==================  ============================================================================
request             answer
==================  ============================================================================
(at the start)      ``{"event": "ready", "versions": {...}, "imports": {...}}``
``{"steps": 20}``   ``{"event": "measured", "build_s": …, "fit_s": …, "facts": {...}}``
any                 ``{"event": "absent", "reason": …}``: the side cannot do this job at all
end of stdin        the side exits
==================  ============================================================================

"build_s" and "fit_s" are wall seconds, "build_cpu_s" and "fit_cpu_s" CPU seconds with those of
worker processes that have ended, "since_start_s" and "since_start_cpu_s" are counted from the start
of the process. "facts" say what was done (see
``Facts``): they are observed in the model, not claimed by the program.
A request with ``"watch": true`` is not timed: the batches are hashed in it.
"""
