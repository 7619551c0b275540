"""A study's config: YAML to frozen dataclasses and back, with errors that name the dotted key.

Sections that set another package's code stand beside that code.
"""

from search.config.build import ConfigError
from search.config.dumping import decisive, differences, dump_config, yaml_text
from search.config.loading import load_config, parse_config, settings_of, without_header
from search.config.paths import PROJECT
from search.config.reading import read_yaml, read_yaml_file
from search.config.secrets import masked, reveal, without_passwords
from search.config.sections import (
    COSTS,
    CalibrationConfig,
    FinishConfig,
    ScheduleConfig,
    TrunkConfig,
)
from search.config.study_config import StudyConfig

__all__ = [
    "COSTS",
    "PROJECT",
    "CalibrationConfig",
    "ConfigError",
    "FinishConfig",
    "ScheduleConfig",
    "StudyConfig",
    "TrunkConfig",
    "decisive",
    "differences",
    "dump_config",
    "load_config",
    "masked",
    "parse_config",
    "read_yaml",
    "read_yaml_file",
    "reveal",
    "settings_of",
    "without_header",
    "without_passwords",
    "yaml_text",
]
