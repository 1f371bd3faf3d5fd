"""Measure the bands of chapter 2. Run: .venv/bin/python tools/bands/02_metrics.py"""

from over_seeds import print_bands

if __name__ == "__main__":
    print_bands(
        "02_metrics",
        {
            "silence-is-more-accurate": 0,
            "balanced-test-inflates-ap": 1,
            "uncorrected-entropy": 1,
            "truth-has-calibration-error": 0,
            "rows-are-too-narrow": 1,
            "keras-auc-gain-by-shift": 0,
        },
    )
