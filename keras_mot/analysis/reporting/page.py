"""The page: one HTML document without scripts that loads nothing."""

import datetime

from keras_mot._packages import require_matplotlib
from keras_mot._version import __version__
from keras_mot.analysis.reporting import sections
from keras_mot.analysis.reporting.contents import ModelReport
from keras_mot.analysis.reporting.markup import Markup, join, tag
from keras_mot.analysis.reporting.pictures import Pictures
from keras_mot.analysis.reporting.sheet import SHEET

_LARGEST = 1_900_000  # bytes
_PICTURES = (24, 12, 4, 0)  # kernels with pictures: fewer, where the page would be too large
# Nothing is loaded and nothing runs, whatever a name may hold; browsers refuse it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page_of(report: ModelReport) -> str:
    """The page of a report, of less than 2 MB."""
    require_matplotlib()
    for most in _PICTURES:
        page = _page(report, most)
        if len(page.encode()) <= _LARGEST:
            break
    return page


def _page(report, most):
    pictures = Pictures()
    parts = {
        "stages": ("Stages and candidates", sections.stages(report, pictures)),
        "layers": ("Layer by layer", sections.layers(report, pictures)),
        "weights": ("The weights", sections.weights(report, pictures, most)),
        "ranges": ("Ranges of activations", sections.ranges(report, pictures)),
        "drift": ("File and model", sections.drift(report, pictures)),
        "time": ("Time and operators", sections.times(report, pictures)),
        "floats": ("What was left alone", sections.floats(report)),
        "sensitivity": ("Sensitivity", sections.sensitivity(report, pictures)),
        "settings": ("To repeat it", sections.settings(report)),
    }
    parts = {key: part for key, part in parts.items() if part[1]}
    links = tag("nav", *(tag("a", title, href=f"#{key}") for key, (title, _) in parts.items()), aria_label="sections")
    today = datetime.date.today()
    top = tag("p", f"{report.title} · {today.day} {today:%B %Y}", class_="eyebrow")
    head = tag("header", top, tag("h1", report.headline), sections.summary(report), links)
    body = [tag("section", tag("h2", title), content, id=key) for key, (title, content) in parts.items()]
    foot = tag("footer", f"Made by keras-mot {__version__}. All numbers were measured on the files named here.")
    heading = join(
        [
            Markup('<meta charset="utf-8">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            tag("title", f"{report.title}: {report.headline}"),
            Markup(f"<style>{SHEET}</style>"),
        ],
        "\n",
    )
    content = tag("main", join([head, *body, foot], "\n"))
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{heading}\n</head>\n<body>\n{content}\n</body>\n</html>\n'
