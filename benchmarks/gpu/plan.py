"""Which rows are measured, the most important first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from benchmarks.gpu.cases import CASES

HALF, SINGLE, AUTOCAST = "bfloat16", "float32", "autocast_bfloat16"
INFERENCE, TRAINING, GENERATION = "inference", "training", "generation"
BOTH_MODES = (TRAINING, INFERENCE)
BOTH_PRECISIONS = (HALF, SINGLE)
PROMPT = 512
TINY_TOKENS = 16
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model in one mode, precision and size.

    Attributes:
        case: The model's key in ``CASES``.
        mode: ``training``, ``inference`` or ``generation``.
        precision: ``bfloat16`` or ``float32`` parameters, or ``autocast_bfloat16``: float32
            parameters under ``torch.autocast``.
        batch: How many samples.
        length: Tokens of each, or the side of an image.
        attention: transformers' attention implementation; ``default`` leaves it its choice.
        compiled: Whether the model runs compiled by ``torch.compile`` with its defaults.
    """

    case: str
    mode: str
    precision: str
    batch: int
    length: int
    attention: str = "default"
    compiled: bool = False

    @property
    def key(self) -> str:
        """What the row is called in files."""
        size = f"{self.batch}x{self.length}"
        how = "/compiled" if self.compiled else ""
        return f"{self.case}/{self.attention}/{self.precision}/{self.mode}/{size}{how}"


# Per model its sizes (batch, tokens), the one that is measured first before the others.
_TEXT: dict[str, tuple[Size, ...]] = {
    "gpt2": ((8, 512), (1, 512), (8, 1024)),
    "bert": ((8, 512), (1, 512), (32, 128)),
    "llama_1b": ((8, 512), (1, 512), (8, 1024)),
    "llama_8b": ((1, 512), (8, 512)),
    "qwen3_0.6b": ((8, 512), (1, 512)),
    "mixtral_small": ((8, 512), (1, 512)),
    "t5_base": ((8, 512), (1, 512)),
    "whisper_small": ((8, 128), (1, 128)),
    "mamba_130m": ((1, 128), (8, 128)),
}
_BATCHES = (32, 8, 128)
_MAIN = ("gpt2", "resnet50", "bert", "vit_b16", "llama_1b", "efficientnet_b0")
_MORE_CONVOLUTIONAL = (
    "resnet152",
    "mobilenet_v3_large",
    "convnext_tiny",
    "vgg16",
    "densenet121",
    "swin_t",
    "inception_v3",
)
_MORE_TRANSFORMERS = ("t5_base", "qwen3_0.6b", "siglip_b16", "whisper_small", "mixtral_small")
# Of those, the ones whose largest size in float32 takes no tens of seconds.
_SMALL_ENOUGH = tuple(case for case in _MAIN if case != "llama_1b")
_AUTOCAST = ("gpt2", "resnet50", "vit_b16")
_EAGER = ("gpt2", "bert")
_COMPILED = ("vit_b16", "bert", "resnet50", "gpt2", "llama_1b", "convnext_tiny")
_GENERATIONS = ("gpt2", "llama_1b", "qwen3_0.6b", "llama_8b")
# Rows whose operators and allocator events are recorded too.
_TRACED = (
    ("gpt2", TRAINING),
    ("resnet50", TRAINING),
    ("bert", TRAINING),
    ("resnet50", INFERENCE),
    ("llama_1b", TRAINING),
    ("llama_1b", INFERENCE),
    ("vit_b16", TRAINING),
    ("efficientnet_b0", TRAINING),
)


def _sizes(case: str) -> tuple[Size, ...]:
    side = CASES[case].side
    return _TEXT.get(case) or tuple((batch, side) for batch in _BATCHES)


def _rows(  # noqa: PLR0913 - what rows differ in
    cases: Iterable[str],
    index: int,
    *,
    modes: Iterable[str] = BOTH_MODES,
    precisions: Iterable[str] = BOTH_PRECISIONS,
    attention: str = "default",
    compiled: bool = False,
) -> Iterator[Row]:
    """Rows of models at the size of an index, where they have one.

    Yields:
        All modes and precisions of the first model, then of the next.
    """
    for case in cases:
        for batch, length in _sizes(case)[index : index + 1]:
            for precision in precisions:
                for mode in modes:
                    yield Row(
                        case=case,
                        mode=mode,
                        precision=precision,
                        batch=batch,
                        length=length,
                        attention=attention,
                        compiled=compiled,
                    )


def _generations(cases: Iterable[str], precision: str) -> Iterator[Row]:
    for case in cases:
        for batch in (1, 8):
            yield Row(case=case, mode=GENERATION, precision=precision, batch=batch, length=PROMPT)


def rows() -> list[Row]:
    """All measurements in the order of their importance."""
    others = (*_MORE_CONVOLUTIONAL, *_MORE_TRANSFORMERS)
    half = (HALF,)
    return list(
        dict.fromkeys(
            [
                *_rows(_MAIN, 0),
                *_rows(_AUTOCAST, 0, precisions=(AUTOCAST,)),
                *_generations(_GENERATIONS, HALF),
                *_rows(("llama_8b",), 0, modes=(INFERENCE,), precisions=half),
                *_rows(_MAIN, 1),
                *_rows(_MAIN, 2, precisions=half),
                *_rows(others, 0),
                *_rows(_EAGER, 0, attention="eager"),
                *_generations(("mixtral_small",), HALF),
                *_generations(("gpt2", "llama_1b"), SINGLE),
                *_rows(("llama_8b",), 1, modes=(INFERENCE,), precisions=half),
                *_rows(_SMALL_ENOUGH, 2, precisions=(SINGLE,)),
                *_rows(_MORE_TRANSFORMERS, 1),
                *_rows(_MORE_CONVOLUTIONAL, 2),
                *_rows(_AUTOCAST, 1, precisions=(AUTOCAST,)),
                *_rows(("mamba_130m",), 0, precisions=half),
                *_rows(_MORE_CONVOLUTIONAL, 1),
                *_rows(_COMPILED, 0, precisions=half, compiled=True),
            ]
        )
    )


def traced() -> list[Row]:
    """Rows whose operators and allocator events are recorded, the most important first."""
    return [
        row
        for precision in BOTH_PRECISIONS
        for case, mode in _TRACED
        for row in _rows((case,), 0, modes=(mode,), precisions=(precision,))
    ]


def tiny(planned: Iterable[Row]) -> list[Row]:
    """Rows of a dry run: small batches and lengths, each only once."""
    return list(dict.fromkeys(map(_tiny, planned)))


def _tiny(row: Row) -> Row:
    case = CASES[row.case]
    if row.case not in _TEXT:  # one size: a batch normalization needs two samples
        return replace(row, batch=2, length=case.tiny_side)
    largest = max(batch for batch, _ in _sizes(row.case))
    return replace(row, batch=2 if row.batch == largest else 1, length=TINY_TOKENS)
