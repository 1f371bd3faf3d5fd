"""Measure the bands of chapter 3. Run: .venv/bin/python tools/bands/03_article_pipeline.py"""

from over_seeds import print_bands

if __name__ == "__main__":
    print_bands(
        "03_article_pipeline",
        {
            "shape-fault-prints-half": 0.9,  # what the network scores without the fault
            "forest-leak-alone": 0,
            "forest-synthetic-rows-alone": 0,
            "noise-leak-forest": 0,
            "article-network-ratio": 1,
            "fall-of-ap-by-prevalence": 0,
            "without-smote-auc": 0,
            "corrected-minus-article-auc": 0,
        },
    )
