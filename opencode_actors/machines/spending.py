"""What a job has cost, by the prices that OpenCode knows."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import Factory, evolve, frozen

from opencode_actors.machines.server_events import MessageInfo, Tokens


@frozen(kw_only=True)
class Spending:
    """`known` is False when a model was used that OpenCode has no price for: it reports a cost of 0 then, and
    `cost` is too low."""

    cost: float = 0.0
    tokens: Tokens = Factory(Tokens)
    known: bool = True


def spent(infos: Iterable[MessageInfo]) -> Spending:
    infos = tuple(infos)
    each = [info.tokens for info in infos]
    return Spending(
        cost=sum(info.cost for info in infos),
        tokens=Tokens(
            input=sum(tokens.input for tokens in each),
            output=sum(tokens.output for tokens in each),
            reasoning=sum(tokens.reasoning for tokens in each),
            cache_read=sum(tokens.cache_read for tokens in each),
            cache_write=sum(tokens.cache_write for tokens in each),
        ),
        known=all(info.cost or info.tokens == Tokens() for info in infos),
    )


@frozen(kw_only=True)
class Recorded:
    """What an earlier process had seen: all of it, and the part of it that the messages of the last prompt's answer
    do not tell again, which is `aside`: that of sub-agents, and of prompts before."""

    total: Spending = Factory(Spending)
    aside: Spending = Factory(Spending)


def aside(before: Recorded, infos: Iterable[MessageInfo]) -> Spending:
    return _together(before.aside, spent(infos))


def in_all(before: Recorded, aside: Spending, answers: Iterable[MessageInfo]) -> Spending:
    """At least what was seen before: until the conversation has been read, its answer is not known here."""
    now, known = _together(aside, spent(answers)), before.total.known
    more = now if now.cost >= before.total.cost else before.total
    return evolve(more, known=now.known and known)


def _together(one: Spending, other: Spending) -> Spending:
    here, there = one.tokens, other.tokens
    return Spending(
        cost=one.cost + other.cost,
        tokens=Tokens(
            input=here.input + there.input,
            output=here.output + there.output,
            reasoning=here.reasoning + there.reasoning,
            cache_read=here.cache_read + there.cache_read,
            cache_write=here.cache_write + there.cache_write,
        ),
        known=one.known and other.known,
    )


def in_words(cost: float, *, known: bool, most: float = 0.0) -> str:
    """`most` is the bound that was set, 0 for none: a cost that is not known cannot be held by it."""
    held = f", so its bound of {dollars(most)} does not hold" if most else ""
    if known:
        return dollars(cost) if cost else "no cost"
    if cost:
        return f"at least {dollars(cost)} (OpenCode has no price for a model that was used{held})"
    return f"cost unknown (OpenCode has no price for the model{held})"


def dollars(amount: float) -> str:
    return f"${amount:.4f}"
