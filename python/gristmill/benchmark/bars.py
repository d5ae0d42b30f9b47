"""Bars: a figure against a bound or a peer of the same run, the ratio that it must reach, and tables of them."""

from __future__ import annotations

from dataclasses import dataclass

from gristmill.console import Cell, Table

__all__ = ["Bar", "geometric_mean", "table"]


@dataclass(frozen=True)
class Bar:
    """One comparison.

    Attributes:
        name: What was measured.
        figure: The figure itself, with its unit, as text.
        against: The bound or peer of the same run.
        ratio: Ours against it: above 1 is faster than a peer; 1 is exactly at a bound.
        target: The ratio to reach; 0 for a comparison that is only reported.
        alike: Ours against a peer held to the instructions that our kernels use; 0 where there is none.
        at_most: The target is what the ratio must not exceed: for losses.
    """

    name: str
    figure: str
    against: str
    ratio: float
    target: float = 0.0
    alike: float = 0.0
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the ratio reaches the target, or does not exceed it."""
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target


def geometric_mean(ratios: list[float]) -> float:
    """Return the geometric mean.

    Example:
        >>> geometric_mean([2.0, 8.0])
        4.0
    """
    product = 1.0
    for ratio in ratios:
        product *= ratio ** (1.0 / len(ratios))
    return round(product, 12)


def table(title: str, bars: list[Bar]) -> Table:
    """Return the bars as a table; a missed one is red, and columns that no bar fills are left out.

    Example:
        >>> print(table("Products", [Bar("int8", "90 GMAC/s", "bound 100", 0.9)]).render(color=False, unicode=False))
        Products
        what  measured   against    ratio
        ----  ---------  ---------  -----
        int8  90 GMAC/s  bound 100   0.90
    """
    aimed, held = any(bar.target for bar in bars), any(bar.alike for bar in bars)
    columns = ["what", "measured", "against", "ratio", *["target", ""] * aimed, *["ratio, like instructions"] * held]
    result = Table(columns, title=title, align="<><>" + "><" * aimed + ">" * held)
    for bar in bars:
        verdict = Cell("met", "green") if bar.met else Cell("missed", "red")
        target = f"{'at most ' if bar.at_most else ''}{bar.target:.2f}"
        judged = ([target, verdict] if bar.target else ["", ""]) if aimed else []
        alike = [f"{bar.alike:.2f}" if bar.alike else ""] * held
        result.add(bar.name, bar.figure, bar.against, f"{bar.ratio:.2f}", *judged, *alike)
    return result
