"""From a chat to token ids and the mask of the tokens that are trained.

The mask comes from the chat template's `{% generation %}` marks. Most templates have none; then each assistant turn is
found by rendering the chat up to its start and its end. Either way the token that closes the turn is trained too, since
the model would otherwise never learn to stop.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from training.errors import TrainingError, invalid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]
TrainOn = Literal["assistant", "last", "all"]
_GENERATION_MARK = re.compile(r"{%-?\s*generation\s*-?%}")


@dataclass(frozen=True)
class Encoded:
    """Token ids, and for each of them whether it is a target of the loss."""

    ids: list[int]
    trained: list[bool]


class ChatEncoder:
    """Encodes chats with one tokenizer; TrainingError `template_unmaskable` where turns cannot be told apart."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, train_on: TrainOn) -> None:
        self._tokenizer = tokenizer
        self._train_on = train_on
        template: object = tokenizer.chat_template
        if not isinstance(template, str):
            raise invalid(
                "template_unmaskable", "the model's tokenizer has no chat template", "use an instruct or chat model"
            )
        if not tokenizer.is_fast:
            raise invalid(
                "template_unmaskable", "the model's tokenizer reports no character offsets", "use a fast tokenizer"
            )
        self._marked = _GENERATION_MARK.search(template) is not None
        self._eos_id = cast("int | None", tokenizer.eos_token_id)
        self._stop_ids = self._find_stop_ids()

    def encode(self, chats: Sequence[list[Message]]) -> list[Encoded]:
        """One result for each chat, in order."""
        if self._marked and self._train_on != "all":
            batch = self._tokenizer.apply_chat_template(
                list(chats), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
            )
            rows = cast("dict[str, list[list[int]]]", batch)
            pairs = zip(rows["input_ids"], rows["assistant_masks"], strict=True)
            return [self._finish(list(ids), [bool(mark) for mark in marks]) for ids, marks in pairs]
        texts = [self._render(chat) for chat in chats]
        spans = [self._trained_spans(chat, text) for chat, text in zip(chats, texts, strict=True)]
        batch = self._tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        encoded: list[Encoded] = []
        for ids, offsets, wanted in zip(batch["input_ids"], batch["offset_mapping"], spans, strict=True):
            trained = [any(start <= first < end for start, end in wanted) for first, _ in offsets]
            encoded.append(self._finish(list(ids), trained))
        return encoded

    def _trained_spans(self, chat: list[Message], text: str) -> list[tuple[int, int]]:
        if self._train_on == "all":
            return [(0, len(text))]
        turns = [index for index, message in enumerate(chat) if message["role"] == "assistant"]
        if self._train_on == "last":
            turns = turns[-1:]
        return [self._turn_span(chat, text, turn) for turn in turns]

    def _turn_span(self, chat: list[Message], text: str, turn: int) -> tuple[int, int]:
        """Where the turn's characters lie, without the header that the template writes before an answer."""
        if not turn:
            return self._opening_span(chat, text)
        before, with_header = self._render(chat[:turn]), self._render(chat[:turn], header=True)
        after = text if turn == len(chat) - 1 else self._render(chat[: turn + 1])
        if not (text.startswith(before) and text.startswith(after)):
            raise _unmaskable("the chat template renders earlier turns differently once later ones follow")
        # Templates may open an answer in a chat that goes on with more than they keep of it in one that is finished.
        return len(os.path.commonprefix([with_header, after])), len(after)  # noqa: RUF071, it is text

    def _opening_span(self, chat: list[Message], text: str) -> tuple[int, int]:
        """The span of an answer that no message precedes; the template may put a system prompt of its own there."""
        probe: list[Message] = [{"role": "user", "content": "a"}]
        header = self._render(probe, header=True).removeprefix(self._render(probe))
        after = text if len(chat) == 1 else self._render(chat[:1])
        start = text.find(header)
        if start < 0 or not text.startswith(after):
            raise _unmaskable("the chat template gives no way to find an answer that opens the chat")
        return start + len(header), len(after)

    def _render(self, chat: list[Message], header: bool = False) -> str:
        from jinja2 import TemplateError

        try:
            return cast("str", self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=header))
        except (TemplateError, TypeError, KeyError, IndexError) as error:
            raise invalid("data_invalid", f"the model's chat template refuses the chat: {error}") from None

    def _find_stop_ids(self) -> frozenset[int]:
        """The ids that close an assistant turn: end of sequence, and the special token that ends a rendered answer."""
        stop_ids = set() if self._eos_id is None else {self._eos_id}
        try:
            text = self._render([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
        except TrainingError:  # a template with its own rules about turns: end of sequence must do
            return frozenset(stop_ids)
        ids = cast("list[int]", self._tokenizer(text, add_special_tokens=False)["input_ids"])
        while ids and self._is_blank(ids[-1:]):
            ids.pop()
        if ids and ids[-1] in self._tokenizer.all_special_ids:
            stop_ids.add(ids[-1])
        return frozenset(stop_ids)

    def _finish(self, ids: list[int], trained: list[bool]) -> Encoded:
        if self._train_on == "last":
            last = _runs(trained)[-1:]
            trained = [any(start <= index < end for start, end in last) for index in range(len(ids))]
        if self._train_on != "all":
            for start, end in _runs(trained):
                self._close_turn(ids, trained, start, end)
        if trained:
            trained[0] = False  # nothing comes before the first token that could predict it
        return Encoded(ids, trained)

    def _close_turn(self, ids: list[int], trained: list[bool], start: int, end: int) -> None:
        """Make the stop token the last trained one of the turn, and train it wherever the template put it."""
        stops = [index for index in range(start, end) if ids[index] in self._stop_ids]
        if stops and self._is_blank(ids[stops[-1] + 1 : end]):
            trained[stops[-1] + 1 : end] = [False] * (end - stops[-1] - 1)
        elif end < len(ids) and ids[end] in self._stop_ids:
            trained[end] = True
        elif end == len(ids) and self._eos_id is not None:
            ids.append(self._eos_id)
            trained.append(True)

    def _is_blank(self, ids: list[int]) -> bool:
        return not cast("str", self._tokenizer.decode(ids)).strip()


def _unmaskable(message: str) -> TrainingError:
    hint = "set train_on: last or all, or add {% generation %} marks to the model's chat template"
    return invalid("template_unmaskable", message, hint)


def _runs(mask: list[bool]) -> list[tuple[int, int]]:
    """The (start, end) of each unbroken stretch of true values."""
    edges = [
        index
        for index in range(len(mask) + 1)
        if (index < len(mask) and mask[index]) != (index > 0 and mask[index - 1])
    ]
    return list(zip(edges[::2], edges[1::2], strict=True))
