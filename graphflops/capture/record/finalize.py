"""What is known of a capture when it is done: sizes that were open, and what a reader must know."""

from __future__ import annotations

from graphflops.capture.fake.constant_propagation import ASSUMED_FLOAT, INPUTS, RANDOM, ValueTracker
from graphflops.capture.unfused_attention import mark_hidden
from graphflops.core.call_sequence import CallSequence
from graphflops.core.ir import NamedTensors, OpCall
from graphflops.core.substitution import Substitution

_ASKED = "Some sizes follow from values of the inputs: with other values it may cost otherwise."
SUPPOSED = (
    "Which experts tokens go to is up to the weights: they are supposed to go to all in turn."
)

_DRAWN = (
    f"Random numbers that decide what runs are taken to be {ASSUMED_FLOAT}: a layer that is "
    "dropped more rarely is kept."
)
_READABLE = 40  # characters of a condition that a note quotes


def finalize(
    known: ValueTracker, calls: CallSequence[OpCall], inputs: NamedTensors
) -> tuple[CallSequence[OpCall], NamedTensors]:
    """Calls and inputs with the sizes that symbols have turned out to be, and what masks hide.

    A size may be a symbol when a call is made, and a number that a later one asks for.
    """
    calls = mark_hidden(calls)
    if not (sizes := known.symbols.finalize()):
        return calls, inputs
    put = Substitution(sizes)
    given = tuple((name, put.tensor(meta)) for name, meta in inputs)
    return calls.map_items(lambda call: (put.call(call),)), given


def notes_of(known: ValueTracker) -> tuple[str, ...]:
    """What a reader must know of a graph.

    Raises:
        CaptureError: A size that was to be symbolic has become a number.
    """
    symbols = known.symbols
    symbols.refuse_fixed()
    # What the user has said is no news.
    assumed = [str(c) for c in symbols.assumptions() if c not in symbols.declared]
    short = [condition for condition in assumed if len(condition) <= _READABLE]
    if more := len(assumed) - len(short):
        short.append(f"{more} longer conditions on sizes are met")
    caught = symbols.shape_env.swallowed_refusals()
    sentences = {
        f"Weights are distributed over {known.num_ranks} ranks: operators count as on one device, "
        "of whole tensors; collectives as one rank calls them. A training step has all gradients "
        "under weights.": known.num_ranks > 1,
        _ASKED: INPUTS in known.dependences,
        _DRAWN: RANDOM in known.dependences,
        SUPPOSED: known.has_assumed_values,
        f"Numbers that only data can give are taken to be {ASSUMED_FLOAT}, at "
        f"{', '.join(known.unknown_floats)}: "
        "with others, what follows from them may cost otherwise.": known.unknown_floats,
        f"What attention masks hide is not known in full, at {', '.join(known.unknown_masks)}: "
        "flops_masked has what is known.": known.unknown_masks,
        f"Where packed sequences begin is not known, at {', '.join(known.unknown_packings)}: each "
        "counts as long as the longest.": known.unknown_packings,
        f"Costs hold where {', '.join(short)}.": short,
        f"Values that depend on data were asked for at {', '.join(caught)}: the model caught the "
        "refusal and went on another way, which it may not do on data.": caught,
    }
    return tuple(sentence for sentence, said in sentences.items() if said)
