"""How one request is driven: whether it was sent and what is there, what to send, and how it is undone."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from skyspan.contracts.context import ReadContext, StageContext
from skyspan.model.change import NO_OUTPUTS, Action, Change, Observation, ResourceChange
from skyspan.model.error import CredentialsError, OutputError, Retry, SpecError, StageError, ToolFailedError
from skyspan.model.error import UnreachableError as Unreachable
from skyspan.model.secret import Secret
from skyspan.model.value import OutputValue, Value, digest, masked, secrets_in
from skyspan.providers.http.exchange import Request, exchange, request_of, shown_url, trust
from skyspan.providers.http.expect import Answer, Expectation, document_of, mismatches, pick
from skyspan.providers.http.spec import HttpSpec
from skyspan.providers.masking import holds_secret, mask_secrets
from skyspan.providers.remembered import Remembered, forget, recall, remember, remember_with_end, stamp_of

_LONGEST_PAUSE_S = 60.0
_GONE = frozenset({404, 410})
_AGAIN = frozenset({429, 500, 502, 503, 504})
_REFUSED = frozenset({401, 403, 407})


class SingleRequest:
    """Sends an HTTP request, judges the answer and picks outputs from it.

    Evidence is the `check` request, else the memory that the request succeeded, which is kept with the stage.
    """

    async def observe(self, spec: HttpSpec, ctx: ReadContext) -> Observation:
        mark = await recall(ctx.kept)
        if mark is not None and not mark.finished:
            return Observation.absent("an earlier attempt was interrupted")
        if spec.check is not None:
            return await _checked(spec, mark, ctx)
        return Observation.absent("it has not been sent yet") if mark is None else _seen(mark)

    async def plan(self, spec: HttpSpec, seen: Observation, ctx: ReadContext) -> Change:
        if not seen.exists:
            return _change(Action.CREATE, spec, seen, seen.reason)
        mark = await recall(ctx.kept)
        if mark is not None and mark.effect != _effect(spec):
            return _change(Action.UPDATE, spec, seen, "its settings changed")
        if seen.drifted:
            return _change(Action.UPDATE, spec, seen, seen.reason)
        if mark is None:
            return Change.none(seen, "it is there already")
        if mark.spec != _whole(spec):
            change = Change(Action.UPDATE, "only its check or destroy changed: nothing is sent", outputs=seen.outputs)
            return _based(change, seen, digest(masked(_rest(spec))))
        return Change.none(seen)

    async def apply(self, spec: HttpSpec, change: Change, ctx: StageContext) -> Observation:
        if change.action is Action.NONE:
            return await self.observe(spec, ctx)
        mark = await recall(ctx.kept)
        if change.action is Action.UPDATE and not change.resources and mark is not None and mark.finished:
            renewed = Remembered(True, mark.effect, _whole(spec), mark.stamp, outputs=mark.outputs)
            await remember(ctx.kept, renewed)
            return _seen(renewed)
        if spec.destroy is not None and mark is None:
            # What an interrupted request made must be undone by destroy.
            await remember(ctx.kept, Remembered(finished=False))
        known = await _known(spec, change, mark, ctx)
        outputs = None if known is None else await _updated(spec, known, ctx)
        if outputs is None:
            request = _request(spec, spec.verb, spec.url, spec.body, spec.query)
            answer = await _send(request, spec, ctx)
            _judge(request, spec.expect, answer, spec)
            outputs = _outputs(spec, answer)
        done = Remembered(True, _effect(spec), _whole(spec), stamp_of(ctx), outputs=outputs)
        remember_with_end(ctx.kept, done)
        return _seen(done)

    async def destroy(self, spec: HttpSpec, ctx: StageContext) -> None:
        mark = await recall(ctx.kept)
        if mark is None:
            return
        if spec.destroy is not None:
            url = _filled(spec.destroy.url, mark)
            if url is None and (found := await _found(spec, ctx)) is not None:
                # An attempt that was cut off made it, and did not get to hear how it is called.
                url = _filled(spec.destroy.url, Remembered(True, outputs=found))
            if url is None:
                ctx.report.line("the request never succeeded, so there is no output to say what to remove")
            else:
                request = _request(spec, spec.destroy.method, url, spec.destroy.body)
                answer = await _send(request, spec, ctx)
                if answer.status not in _GONE:
                    _judge(request, spec.destroy.expect, answer, spec)
        await forget(ctx.kept)


async def _checked(spec: HttpSpec, mark: Remembered | None, ctx: ReadContext) -> Observation:
    assert spec.check is not None
    url = _filled(spec.check.url, mark)
    if url is None:
        return Observation.absent("it has not been sent yet")
    request = _request(spec, spec.check.method, url)
    answer = await _send(request, spec, ctx)
    if answer.status in _GONE and not spec.check.expect.accepts(answer.status):
        return Observation.absent(f"{request.shown} answers {answer.status}")
    if answer.status in _REFUSED | _AGAIN:
        _judge(request, spec.check.expect, answer, spec)
    wrong = mismatches(spec.check.expect, answer)
    if not wrong:
        return _seen(mark)
    reason = mask_secrets(f"{request.shown}: {'; '.join(wrong)}", _secrets(spec))
    drift = (ResourceChange(shown_request(spec), Action.UPDATE, reason),)
    outputs = mark.outputs if mark else NO_OUTPUTS
    return Observation(True, drifted=True, fingerprint=f"drifted {reason}", reason=reason, outputs=outputs, drift=drift)


async def _known(
    spec: HttpSpec, change: Change, mark: Remembered | None, ctx: StageContext
) -> Mapping[str, OutputValue] | None:
    """The outputs of what is there and can be updated; None for what is to be made."""
    if spec.update is None:
        return None
    if change.action is Action.UPDATE and mark is not None and mark.finished:
        return mark.outputs
    return await _found(spec, ctx)


async def _found(spec: HttpSpec, ctx: ReadContext) -> Mapping[str, OutputValue] | None:
    """What `find` says of a thing that is there; None when there is none."""
    if spec.find is None:
        return None
    request = _request(spec, "GET", spec.find.url)
    answer = await _send(request, spec, ctx)
    if answer.status in _GONE:
        return None
    _judge(request, Expectation(), answer, spec)
    try:
        return _picked(spec.find.outputs, spec, answer)
    except OutputError:
        return None


async def _updated(
    spec: HttpSpec, known: Mapping[str, OutputValue], ctx: StageContext
) -> Mapping[str, OutputValue] | None:
    """Change what is there; the outputs then, or None when it is there no more."""
    assert spec.update is not None
    url = _filled(spec.update.url, Remembered(True, outputs=known))
    if url is None:
        return None
    body = spec.body if spec.update.body is None else spec.update.body
    request = _request(spec, spec.update.method, url, body, spec.query)
    answer = await _send(request, spec, ctx)
    if answer.status in _GONE and not spec.update.expect.accepts(answer.status):
        return None
    _judge(request, spec.update.expect, answer, spec)
    try:
        return {**known, **_outputs(spec, answer)}
    except OutputError:
        missing = set(spec.outputs) - set(known)
        if missing:
            raise
        return known


def _seen(mark: Remembered | None) -> Observation:
    return (
        Observation(True, fingerprint=mark.stamp, outputs=mark.outputs)
        if mark
        else Observation(True, fingerprint="found")
    )


def _change(action: Action, spec: HttpSpec, seen: Observation, reason: str) -> Change:
    resource = ResourceChange(shown_request(spec), action)
    return _based(Change(action, reason, (resource,)), seen, digest(masked(_sent(spec))))


def shown_request(spec: HttpSpec) -> str:
    """The request for people: its method and address, without secrets."""
    return f"{spec.verb} {shown_url(spec.url)}"


def _based(change: Change, seen: Observation, meaning: str) -> Change:
    return Change(
        change.action,
        change.reason,
        change.resources,
        based_on=seen.fingerprint,
        meaning=f"{change.action.value} {meaning}",
        outputs=change.outputs,
    )


def _sent(spec: HttpSpec) -> dict[str, Value]:
    """The settings that the request and its outputs are made of."""
    return spec.model_dump(include={"url", "method", "headers", "query", "body", "outputs", "auth"})


def _rest(spec: HttpSpec) -> dict[str, Value]:
    rest = spec.model_dump(exclude={"url", "method", "headers", "query", "body", "outputs", "auth", "each", "key"})
    # What was added to the settings later has no part in the digests of stages that were made before.
    return {name: value for name, value in rest.items() if value is not None or name not in ("find", "update")}


def _effect(spec: HttpSpec) -> str:
    return digest(_sent(spec))


def _whole(spec: HttpSpec) -> str:
    return digest(_rest(spec)) + _effect(spec)


def _secrets(spec: HttpSpec) -> frozenset[Secret]:
    return secrets_in(spec.model_dump())


def _request(
    spec: HttpSpec,
    method: str,
    url: str | Secret,
    body: Value = None,
    query: Mapping[str, str | Secret] | None = None,
) -> Request:
    return request_of(
        method,
        url,
        headers=spec.headers,
        query=query or {},
        body=body,
        auth=spec.auth,
        timeout_s=spec.timeout,
    )


def _filled(url: str | Secret, mark: Remembered | None) -> str | Secret | None:
    """The address with `{name}` replaced by outputs; None when one of them is not known."""
    text = url if isinstance(url, str) else url.reveal()
    for name, output in (mark.outputs if mark else NO_OUTPUTS).items():
        value = output.value if isinstance(output.value, str) else json.dumps(output.value)
        text = text.replace("{" + name + "}", quote(value, safe=""))
    if "{" in text:
        return None
    return text if isinstance(url, str) else Secret(text)


async def _send(request: Request, spec: HttpSpec, ctx: ReadContext) -> Answer:
    """Send it, again and again as `retries` says; raises what the last try raised."""
    trusted = _trusted(spec, ctx)
    for attempt in range(1, spec.retries.attempts + 1):
        last = attempt == spec.retries.attempts
        pause = min(spec.retries.backoff * 2 ** (attempt - 1), _LONGEST_PAUSE_S)
        try:
            answer = await exchange(request, trusted)
        except Unreachable as error:
            if last or error.retry is Retry.NEVER or _too_late(ctx, pause):
                raise _masked(error, spec) from error
            ctx.report.line(f"{mask_secrets(error.summary, _secrets(spec))}; again in {pause:g} s")
        except StageError as error:
            raise _masked(error, spec) from error
        else:
            asked = _retry_after(answer, ctx)
            if answer.status not in _AGAIN or last or asked > _LONGEST_PAUSE_S:
                return answer
            pause = asked or pause
            if _too_late(ctx, pause):
                return answer
            ctx.report.line(f"{request.shown} answers {answer.status}; again in {pause:g} s")
        await ctx.clock.sleep(pause)
    raise AssertionError("every last try returns or raises")


def _too_late(ctx: ReadContext, pause: float) -> bool:
    return ctx.deadline is not None and ctx.clock.monotonic() + pause >= ctx.deadline


def _retry_after(answer: Answer, ctx: ReadContext) -> float:
    """How long the server asks to wait (RFC 9110, 10.2.3), 0 when it does not say."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - ctx.clock.now(), 0.0)
    except (ValueError, OverflowError):
        return 0.0


def _trusted(spec: HttpSpec, ctx: ReadContext) -> ssl.SSLContext | bool:
    if spec.verify is False:
        ctx.report.line("warning: the server's certificate is not checked (verify: false)")
    verify = str(ctx.folder / spec.verify) if isinstance(spec.verify, str) else spec.verify
    return trust(verify)


def _judge(request: Request, expected: Expectation, answer: Answer, spec: HttpSpec) -> None:
    """Raise when the answer is not what is expected, with the first part of its body, secrets masked."""
    wrong = mismatches(expected, answer)
    if not wrong:
        return
    secrets = _secrets(spec)
    summary = mask_secrets(f"{request.method} {request.shown}: {'; '.join(wrong)}", secrets)
    detail = mask_secrets(answer.opening(), secrets)
    if answer.status in _REFUSED:
        raise CredentialsError(summary, detail=detail, hint="check `auth` and `headers`")
    retry = Retry.LATER if answer.status in _AGAIN else Retry.NEVER
    raise ToolFailedError(summary, detail=detail, retry=retry)


def _outputs(spec: HttpSpec, answer: Answer) -> Mapping[str, OutputValue]:
    return _picked(spec.outputs, spec, answer) if spec.outputs else NO_OUTPUTS


def _picked(paths: Mapping[str, str], spec: HttpSpec, answer: Answer) -> Mapping[str, OutputValue]:
    secrets = _secrets(spec)
    try:
        document = document_of(answer)
        values = {name: pick(document, path) for name, path in paths.items()}
    except OutputError as error:
        opening = mask_secrets(answer.opening(), secrets)
        raise OutputError(error.summary, detail=opening, hint="correct `outputs`") from error
    return {name: OutputValue(value, holds_secret(_as_text(value), secrets)) for name, value in values.items()}


def _as_text(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _masked(error: StageError, spec: HttpSpec) -> StageError:
    secrets = _secrets(spec)
    kind = type(error) if isinstance(error, Unreachable | ToolFailedError | SpecError) else StageError
    return kind(
        mask_secrets(error.summary, secrets),
        detail=mask_secrets(error.detail, secrets),
        hint=error.hint,
        retry=error.retry,
    )
