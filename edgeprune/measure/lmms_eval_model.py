"""A bundle as a model of lmms-eval (0.7): `lmms-eval --model edgeprune --model_args bundle=DIR,keep=0.1 --tasks pope`.

lmms-eval finds it by the entry point `lmms_eval.models` of this package; nothing has to be registered or copied.
Arguments: bundle, keep, method, variant, threads, max_new_tokens (for tasks that name none). Pictures only, one
request at a time; requests about the pictures of the one before share their encoding. Beam search is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from lmms_eval.api.model import lmms

from edgeprune.errors import UserError
from edgeprune.runtime.session import Model, Session

_DECODING = ("temperature", "top_p", "top_k")


def manifest() -> Any:
    """The entry point: what lmms-eval's registry wants to know."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="edgeprune", simple_class_path=f"{__name__}.EdgepruneModel")


class EdgepruneModel(lmms):  # type: ignore[misc]
    """See the module's text; `batch_size` and `device` are lmms-eval's own arguments, and only 1 and cpu are served."""

    is_simple = True

    def __init__(
        self,
        bundle: str,
        keep: float | None = None,
        method: str | None = None,
        variant: str | None = None,
        threads: int = 0,
        max_new_tokens: int = 128,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        if str(batch_size) != "1":
            raise UserError(f"edgeprune answers one request at a time: leave batch_size at 1, not {batch_size}.")
        self._model = Model.open(bundle, variant=variant, threads=int(threads))
        self._keep, self._method, self._most = keep, method, int(max_new_tokens)
        self._session: Session | None = None
        self._seen = ""

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """One text per request, in their order."""
        found = []
        for context, settings, visuals, _, _, _ in self._unpacked(requests):
            found.append(self._with(visuals).generate(_plain(context), **self._options(dict(settings))).text)
        return found

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(ln p of the continuation, whether greedy decoding begins with it) per request."""
        found = []
        for context, target, visuals, doc_id, task, split in self._unpacked(requests):
            wanted = target if isinstance(target, str) else target(self.task_dict[task][split][doc_id])
            session = self._with(visuals)
            [choice] = session.score(_plain(context), [wanted]).choices
            answer = session.generate(_plain(context), max_new_tokens=choice.tokens, ignore_eos=True)
            found.append((choice.log_probability, answer.token_ids == tuple(self._model.tokenize(wanted))))
        return found

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """UserError: tasks with several rounds are not served."""
        raise UserError("edgeprune does not serve lmms-eval tasks with several rounds; choose others.")

    def _unpacked(self, requests: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        for request in requests:
            context, extra, to_visual, doc_id, task, split = request.args
            yield context, extra, _flat(to_visual(self.task_dict[task][split][doc_id])), doc_id, task, split

    def _with(self, pictures: list[Any]) -> Session:
        """A session that holds exactly these pictures."""
        digest = hashlib.sha256()
        for picture in pictures:
            digest.update(f"{picture.mode}{picture.size}".encode() + picture.tobytes())
        if self._session is None or digest.hexdigest() != self._seen:
            if self._session is not None:
                self._session.close()
            self._session, self._seen = self._model.new_session(), ""
            for picture in pictures:
                self._session.add_image(picture, keep=self._keep, method=self._method)
            self._seen = digest.hexdigest()
        return self._session

    def _options(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Options of `Session.generate` from those of a task."""
        if settings.get("num_beams") not in (None, 1):
            raise UserError(f"edgeprune has no beam search, and the task asks for {settings['num_beams']} beams.")
        until = settings.get("until") or []
        chosen = {name: settings[name] for name in _DECODING if settings.get(name) is not None}
        if settings.get("do_sample") is False:
            chosen = {}
        return {
            "max_new_tokens": int(settings.get("max_new_tokens") or self._most),
            "stop": [until] if isinstance(until, str) else [text for text in until if text],
            **chosen,
        }


def _plain(context: Any) -> str:
    """The question; the bundle's own template says where pictures stand."""
    text = context[0] if isinstance(context, list | tuple) else context
    return str(text).replace("<image>", "").strip()


def _flat(pictures: Any) -> list[Any]:
    """A picture, a list of them, or nothing."""
    if pictures is None:
        return []
    return list(pictures) if isinstance(pictures, list | tuple) else [pictures]
