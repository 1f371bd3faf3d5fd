"""Rankers of search results: what trains them, over several draws of clicks and of folds."""

from functools import cached_property

import numpy as np
import pandas as pd

from recbal_utils import clicks, listwise, search, studies

PLACES, POOL, NEGATIVES = 10, 100, 40
SESSIONS = (3_000, 30_000, 300_000)
RANDOM_SHARE = 0.1
NEGATIVE_KINDS = ("random", "hard", "mixed")
BALANCES = ("by traffic", "by judgement", "by query", "by query and grade")


class Lab:
    """The shop, its queries, their scores and the true behaviour of shoppers."""

    def __init__(self):
        self.judged = search.judged()
        self.shelves = search.shelves()
        self.queries = self.judged.queries
        self.grades = search.grade_matrix(self.judged, self.shelves)
        self.sold = self.shelves["bought"].to_numpy()
        texts, asked = list(self.shelves["text"]), list(self.queries["query"])
        self.scores = {
            "words": search.bm25(texts, asked),
            "letters": search.letters(texts, asked),
            "meaning": search.meaning(texts, asked),
        }
        self.click = clicks.by_grade(self.grades, clicks.CLICK_BY_GRADE, self.sold)
        self.buy = clicks.by_grade(self.grades, clicks.BUY_BY_GRADE, self.sold)
        self.share = clicks.traffic(self._interest(), self.queries["query"].str.split().str.len())

    def _interest(self):
        """Mean purchases of the shelves with a query's highest grade."""
        best = self.grades == self.grades.max(axis=1, keepdims=True)
        return best @ self.sold / best.sum(axis=1)

    @cached_property
    def features(self):
        return search.features(self.scores, self.shelves)

    @cached_property
    def hard(self):
        """Items that words or meaning put among their first hundred."""
        return search.candidates([self.scores["words"], self.scores["meaning"]], POOL, self.sold)

    @cached_property
    def anything(self):
        return [np.arange(len(self.shelves))] * len(self.queries)

    def pages(self, scores, k=PLACES):
        return search.page(scores, k, self.sold)

    def judge(self, scores):
        """NDCG@10 and recall@100 of each query."""
        pages = self.pages(scores, POOL)
        found = {
            "ndcg": search.ndcg_at_k(pages, self.grades),
            "recall": search.recall_at_k(pages, self.grades),
        }
        return pd.DataFrame(found).rename_axis("query").reset_index()

    def log(self, shown, n_sessions=30_000, random_share=0.0, seed=0):
        """Clicks on the pages of a score, such as "words"."""
        return clicks.click_log(
            self.pages(self.scores[shown]),
            self.share,
            self.click,
            self.buy,
            n_sessions,
            pools=self.hard,
            random_share=random_share,
            seed=seed,
        )


def from_judgements(lab, negatives="mixed", balance="by query", seed=0):
    """Scores of rankers trained on grades, each query by one that never saw it."""
    own = [np.flatnonzero(row) for row in lab.grades]
    grades = [row[items] for row, items in zip(lab.grades, own, strict=True)]
    earned = [2.0**grade - 1 for grade in grades]
    if balance == "by query":
        earned = listwise.balanced(earned)
    elif balance == "by query and grade":
        earned = listwise.balanced(earned, grades)
    elif balance == "by traffic":
        earned = [share * w for share, w in zip(lab.share, listwise.balanced(earned), strict=True)]
    items, weights = own, earned
    for at, (pool, n) in enumerate(_drawn(lab, negatives)):
        items, weights = listwise.with_negatives(items, weights, pool, n, seed=2 * seed + at)
    return _out_of_fold(lab, items, weights, seed)


def _drawn(lab, negatives):
    both = [(lab.hard, NEGATIVES // 2), (lab.anything, NEGATIVES // 2)]
    alone = {"hard": [(lab.hard, NEGATIVES)], "random": [(lab.anything, NEGATIVES)]}
    return both if negatives == "mixed" else alone[negatives]


def from_clicks(lab, log, examined=None, per_query=False, unseen=0, seed=0):
    """Scores of rankers trained on clicks; `unseen` negatives are drawn from what was not shown."""
    table = clicks.click_weights(log, examined)
    groups = dict(list(table.groupby("query")))
    none = table.iloc[:0]
    of = [groups.get(query, none) for query in range(len(lab.queries))]
    items = [part["item"].to_numpy() for part in of]
    weights = [part["weight"].to_numpy() for part in of]
    if per_query:
        weights = listwise.balanced(weights)
    if unseen:
        items, weights = listwise.with_negatives(items, weights, lab.anything, unseen, seed)
    return _out_of_fold(lab, items, weights, seed)


def _out_of_fold(lab, items, weights, seed):
    def train(rows):
        chosen = [items[row] for row in rows], [weights[row] for row in rows]
        return listwise.fit(listwise.make(lab.features, rows, *chosen))

    fold = listwise.folds(len(lab.queries), seed=seed)
    return listwise.out_of_fold(train, lab.features, fold)


# --- the study --------------------------------------------------------------------------------


def settings():
    """Every training of the study: its part, its name, and a function of the lab and a seed."""
    for kind in NEGATIVE_KINDS:
        yield "negatives", kind, lambda lab, seed, k=kind: from_judgements(lab, k, seed=seed)
    for kind in BALANCES:
        yield "balance", kind, lambda lab, seed, k=kind: from_judgements(lab, balance=k, seed=seed)
    for shown in ("words", "meaning"):
        for corrected in (False, True):
            for per_query in (False, True):
                for n in SESSIONS:
                    name = label(shown, corrected, per_query, n)
                    yield "clicks", name, clicked(shown, corrected, per_query, n)
    for shown in ("words", "meaning"):
        yield "unseen", f"{shown}, shown only", clicked(shown, True, True)
        yield "unseen", f"{shown}, and unseen", clicked(shown, True, True, unseen=NEGATIVES // 2)
    for n in SESSIONS[1:]:
        for share in (0, RANDOM_SHARE):
            name = f"{share:.0%} random, {n}"
            yield "explore", name, clicked("words", True, True, n, explore=share)


def label(shown, corrected, per_query, n):
    """Name of a training on clicks."""
    how = "corrected" if corrected else "naive"
    return f"{shown}, {how}, {'by query' if per_query else 'by traffic'}, {n}"


def clicked(shown, corrected, per_query, n=SESSIONS[1], unseen=0, explore=0.0):
    """A training on clicks as a function of the lab and a seed."""

    def train(lab, seed):
        log = lab.log(shown, n, explore, seed)
        examined = clicks.examination(PLACES) if corrected else None
        return from_clicks(lab, log, examined, per_query, unseen, seed)

    return train


def run(seeds, checkpoint):
    """NDCG@10 and recall@100 of each query, for every training and seed."""
    lab, jobs = Lab(), list(settings())
    parts = []
    for seed in seeds:
        kept = checkpoint / f"{seed}.parquet"
        if not kept.exists():
            pd.concat(one_seed(lab, jobs, seed)).to_parquet(kept)
        parts.append(pd.read_parquet(kept))
        print(f"seed {seed}: {len(jobs)} rankers", flush=True)
    return pd.concat(parts, ignore_index=True)


def one_seed(lab, jobs, seed):
    for part, name, train in jobs:
        scores, weights = train(lab, seed)
        found = lab.judge(scores).assign(part=part, name=name, seed=seed)
        mean = weights.mean(axis=0)
        yield found.assign(**{f"w {f}": w for f, w in zip(search.FEATURES, mean, strict=True)})


if __name__ == "__main__":
    studies.main(run)
