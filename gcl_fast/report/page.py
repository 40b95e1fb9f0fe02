"""The page: the sections' contents through the templates in `templates/`, which escape every text."""

from __future__ import annotations

import gcl_fast
from gcl_fast.packages import missing
from gcl_fast.report import facts, sections, warned
from gcl_fast.report.run_data import Run
from gcl_fast.report.style import STYLE


def render_page(run: Run, *, live: bool = False) -> str:
    """The whole HTML of a run's report; sections without content are left out. Needs jinja2."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise missing("jinja2", "the report", error) from error
    templates = Environment(
        loader=PackageLoader("gcl_fast.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return templates.get_template("report.html").render(
        name=run.name,
        live=live,
        version=gcl_fast.__version__,
        style=STYLE,
        config=run.config,
        cards=sections.cards(run),
        scores=sections.scores(run),
        novel_views=sections.novel_view_scores(run),
        warnings=warned.warnings(run),
        curves=sections.curves(run),
        pictures=sections.pictures(run),
        times=facts.times(run),
        chosen=facts.chosen(run),
        figures=facts.further_figures(run),
    )
