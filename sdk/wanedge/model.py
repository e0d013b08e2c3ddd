"""A loaded model: graphs with their weights, and the tokenizer. Any number of streams share one."""

from collections.abc import Mapping
from dataclasses import dataclass

from wanedge.config import ModelConfig
from wanedge.text import Tokenizer
from wanedge_runtimes.runtime import Executable


@dataclass(frozen=True)
class Model:
    """Executables by component name. Holds no state of any stream; safe to share between threads."""

    config: ModelConfig
    graphs: Mapping[str, Executable]
    tokenizer: Tokenizer
