"""Run ``flambeau`` as ``python -m flambeau.cli``, for launchers that start a module."""

from flambeau.cli import main

if __name__ == "__main__":
    main()
