"""Which steps of denoising look ahead, which are guided, and where the process goes back.

An interval spans 2 tau steps. The first tau are guided by a field that was fitted to queries of steps yet to come; the
rest are free, and at the last of them queries are kept for the next field. With overlap that free half is thrown away:
the next interval starts where the guided half ended.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.editing.settings import ConsolidateSettings


@dataclass(frozen=True)
class Interval:
    """A look-ahead, whose last step's queries a field is fitted to, and the steps that this field guides.

    The guided half of the paper's interval ``n + 1`` stands here with the free half of interval ``n``.

    Args:
        free: steps of the look-ahead.
        guided: steps.
        back: whether the look-ahead's latents are thrown away; ``guided`` begins where ``free`` does then.
    """

    free: range
    guided: range
    back: bool


def plan_intervals(settings: ConsolidateSettings) -> list[Interval]:
    """The intervals of a run, in order; steps after the last are free.

    The first look-ahead is twice as long: nothing was guided yet. It starts at the first step and, with overlap, goes
    back to it, because views part most where the layout is made.

    Source: QNeRF (Patashnik et al., arXiv 2402.14792), its figure of intervals; where the first goes back to, and where
    guidance stops, are ours.
    """
    steps, tau, end = settings.steps, settings.tau, round(settings.stop * settings.steps)
    if settings.mode == "none":
        return []
    found: list[Interval] = []
    at, ahead = 0, 2 * tau
    while at < end:
        free = range(at, min(at + ahead, steps))
        first = at if settings.overlap else free.stop
        guided = range(first, end if settings.mode == "once" else min(first + tau, end))
        if not guided:
            break
        found.append(Interval(free, guided, settings.overlap))
        at, ahead = guided.stop, tau
    return found
