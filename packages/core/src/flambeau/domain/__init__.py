"""Define the record that describes a kind of data (a domain), and find the installed records.

A package names its record in the entry-point group ``flambeau.domains``
(``vision = "flambeau_vision.domain:DOMAIN"``). Records are read when they are first needed, not
when flambeau is imported.
"""

from flambeau.domain.discovery import (
    ENTRY_POINT_GROUP,
    InstalledDomain,
    domain_of,
    domains_that_read_paths,
    get_domain,
    installed_domains,
    is_variant,
    load_domain,
    path_class,
    recognise_domain,
)
from flambeau.domain.record import (
    API_VERSION,
    COMMANDS,
    DATA_COMMANDS,
    CliOption,
    Domain,
    FromPath,
    Recognition,
    rules_of,
)
from flambeau.domain.record_validation import check_record

__all__ = [
    "API_VERSION",
    "COMMANDS",
    "DATA_COMMANDS",
    "ENTRY_POINT_GROUP",
    "CliOption",
    "Domain",
    "FromPath",
    "InstalledDomain",
    "Recognition",
    "check_record",
    "domain_of",
    "domains_that_read_paths",
    "get_domain",
    "installed_domains",
    "is_variant",
    "load_domain",
    "path_class",
    "recognise_domain",
    "rules_of",
]
