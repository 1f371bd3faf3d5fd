"""Commands: `python -m recbal_utils report LOG --label clicked`."""

import argparse
import os
import sys
import warnings
from pathlib import Path

from recbal_utils._output import checked_output
from recbal_utils.errors import RecbalError

BAD_INPUT, FAULT, INTERRUPTED = 1, 3, 130
EXAMPLE = """\
example:
  python -m recbal_utils report clicks.csv --label clicked --time day --user user_id \\
      --item item_id --cost-fp 1 --cost-fn 20 --output report.html

exit codes: 0 the report is written; 1 the file or the output is unfit, said in one line;
2 wrong options; 3 a fault of this program; 130 interrupted. On any of the last four no
report is written, and an older one stays as it was.
"""


def main(argv=None) -> int:
    """Run a command and return its exit code; whatever goes wrong is one line on stderr."""
    options = _parser().parse_args(argv)
    try:
        return _report(options)
    except RecbalError as error:
        return _say(f"error: {error}", BAD_INPUT)
    except KeyboardInterrupt:
        return _say("interrupted: no report was written", INTERRUPTED)
    except MemoryError:
        return _say("error: not enough memory; try --max-rows 50000", BAD_INPUT)
    except Exception as error:
        if os.environ.get("RECBAL_DEBUG"):
            raise
        said = str(error).strip().partition("\n")[0][:200]
        return _say(
            f"fault: {type(error).__name__}: {said}; this is a fault of recbal_utils, not of the "
            "file (RECBAL_DEBUG=1 shows where)",
            FAULT,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recbal_utils",
        description="Sample balancing for shops, on a log of your own.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    report = commands.add_parser(
        "report",
        help="is balancing worth it on this log? one HTML page answers",
        description="Analyse a labelled log (CSV in UTF-8, or Parquet) and write one HTML page: "
        "problems in the data, imbalance, cold start, whether balancing is worth it, calibration, "
        "recommended settings and code.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument("log", metavar="LOG", help="the CSV or Parquet file")
    report.add_argument("--label", required=True, help="column of the two classes")
    report.add_argument(
        "--positive", help="the label's value that counts as positive (by default the rarer word)"
    )
    report.add_argument("--time", help="column of dates or week numbers; the last rows are tested")
    report.add_argument("--group", help="column within which rows are alike, such as a household")
    report.add_argument("--user", help="column of the visitor; also the group, if none is given")
    report.add_argument("--item", help="column of the product")
    report.add_argument("--cost-fp", type=_cost, help="cost of acting on a negative")
    report.add_argument("--cost-fn", type=_cost, help="cost of missing a positive")
    report.add_argument("--output", default="report.html", help="default: %(default)s")
    report.add_argument("--max-rows", type=_count(100), help="rows to analyse at most")
    report.add_argument("--seeds", type=_count(1), default=3, help="seeds of the samplers")
    report.add_argument("--replicates", type=_count(20), default=500, help="of the intervals")
    report.add_argument("--trees", type=_count(1), default=100, help="rounds of boosting")
    report.add_argument("--quiet", action="store_true", help="say nothing unless it fails")
    return parser


def _cost(text) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive, finite cost")
    return value


def _count(least):
    def number(text) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return value

    return number


def _report(options) -> int:
    if (options.cost_fp is None) != (options.cost_fn is None):
        raise RecbalError("Give both --cost-fp and --cost-fn, or neither.")
    output = checked_output(options.output, options.log)
    from recbal_utils import logfile, takehome  # slow to import: --help does not wait for it

    note = _say if not options.quiet else lambda text: 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        note(f"[1/3] reading {Path(options.log).name}")
        log = logfile.open_log(
            options.log,
            options.label,
            time=options.time,
            group=options.group,
            user=options.user,
            item=options.item,
            positive=options.positive,
            max_rows=options.max_rows,
        )
        settings = takehome.Settings(tuple(range(options.seeds)), options.replicates, options.trees)
        costs = None if options.cost_fp is None else (options.cost_fp, options.cost_fn)
        study = takehome.Study(log, costs=costs, settings=settings)
        note(f"[2/3] {len(log.y):,} of {log.rows:,} rows read; trying ways of balancing")
        answer = study.verdict.sentence
        study.write(output)
    note(f"[3/3] {answer}")
    note(f"report: {options.output}")
    return 0


def _say(text, code=0) -> int:
    line = "".join(c if c.isprintable() else "?" for c in text)
    print(line, file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
