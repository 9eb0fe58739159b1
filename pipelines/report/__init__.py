"""From the outcomes of a finished experiment to what people read: tables, figures, one HTML page, and MLflow.

What flows in is a blueprint whose tables are all finished; `pipelines.stages` fills them. What flows out are the files
of the folder `report` in the store (tables, figures, results.json, report.html), the same tables as Python rows, and a
copy of all that in MLflow. Nothing here computes on images or networks, and a report that is up to date is not made
again.

Where to begin:
* `rows.py`: the columns of the tables, and what each of them means; `tabled.py`: `Report`, all tables as one object.
* `page.py`: `make_report` makes the files, `read_report` reads them back.
* `outcomes.py` and `tables.py`: from predictions to arrays, and from arrays to rows. The statistics themselves are in
  `align_core.transfer`; which surrogates are compared in contrasts.csv is decided by
  `pipelines.experiment.surrogates.contrasts_of`.
* `sentences.py`: says in words what the tables show; `remarks.py`: what has to be known before they are read.
* `drawn.py`: which figures there are, each in a module of its name (`figures`, `relations`, `pareto`, `temperatures`,
  `softness`, `geometry`, `reason_gains`, `curves`); `drawing.py` and `estimates.py`: how they look.
* `html_page.py`: the sections of the page, each a file in `templates`; `facts.py` and `examples.py`: what it says and
  shows beside tables and figures. `shown.py`: tables as people read them; `exports.py`: LaTeX, Markdown, results.json.
* `finished.py`, `comparison.py` and `comparison_page.py`: `witness compare`, which reads results.json (checked by
  `results_file.py`) and what tables record of code that is not Witness's (`recorded_code.py`).
* `reasons.py`: the three tables about reasons, whose columns are in `reason_rows.py`; `reason_tables.py`,
  `correlation_table.py` and `soft_label_table.py` compute them.
* `to_mlflow.py`: `log_report` sends the report to the tracking server; `headline.py` has its metrics,
  `described.py` its words, `spans.py` its times. `live.py`: `shown_live` shows work in MLflow while it goes on.

>>> report = read_report(Store("runs", "demo"))
>>> transfer = pandas.DataFrame(report.transfer)
"""

from typing import TYPE_CHECKING

from pipelines.exports import lazy_exports

if TYPE_CHECKING:
    from pipelines.report.page import make_report as make_report
    from pipelines.report.page import read_report as read_report
    from pipelines.report.rows import ContrastRow as ContrastRow
    from pipelines.report.rows import SurrogateRow as SurrogateRow
    from pipelines.report.rows import TransferRow as TransferRow
    from pipelines.report.sentences import verdicts as verdicts
    from pipelines.report.tabled import Report as Report
    from pipelines.report.to_mlflow import log_report as log_report

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "page": (
            "make_report",
            "read_report",
        ),
        "rows": (
            "ContrastRow",
            "SurrogateRow",
            "TransferRow",
        ),
        "sentences": ("verdicts",),
        "tabled": ("Report",),
        "to_mlflow": ("log_report",),
    },
)
