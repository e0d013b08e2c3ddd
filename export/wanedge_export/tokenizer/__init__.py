"""The shipped tokenizer: byte-level BPE over about a thousand tokens, trained on the sentences beside this file.

`lobby.json` is committed, so that every export of a model uses the same ids; `python -m wanedge_export.tokenizer`
makes it again.
"""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from wanedge.config import TextConfig
from wanedge.text import PAD, WORLD

HERE = Path(__file__).parent
LOBBY = HERE / "lobby.json"
CORPUS = HERE / "corpus.txt"

# What the agent does beside speaking (paper v0.3: behaviour in parentheses). One token each, so that a gesture does not
# hold up the words behind it. Ours.
BEHAVIOURS = ("(waves)", "(smiles)", "(nods)", "(shakes head)", "(points left)", "(points right)")


def train(
    corpus: list[str], vocabulary: int, states: tuple[str, ...], whole: tuple[str, ...] = BEHAVIOURS
) -> Tokenizer:
    """Byte-level BPE with at most `vocabulary` tokens; any text can be encoded, for every byte is a token.

    whole: texts that are one token each.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    special = [AddedToken(name, special=True, normalized=False) for name in (PAD, WORLD, *states)]
    trainer = BpeTrainer(
        vocab_size=vocabulary - len(whole),
        special_tokens=special,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in whole])
    return tokenizer


def train_lobby() -> Tokenizer:
    """The tokenizer that ships, from the corpus that ships."""
    text = TextConfig()
    return train(CORPUS.read_text("utf-8").splitlines(), text.vocabulary, text.states)
