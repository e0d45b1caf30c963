"""Train a classifier on each set of labels, and test them all on the same held-out reviews.

Arguments: NAME=FILE for each set of labels, a CSV file of `icm_hpc.export`. The stars are the gold labels.
"""

import csv
import sys
from pathlib import Path

from scipy.stats import binomtest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

HERE = Path(__file__).parent


def rows_of(path):
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def gold(row):
    return "positive" if int(row["stars"]) > 3 else "negative"


reviews = {row["id"]: row for row in rows_of(HERE / "reviews.csv")}
test = rows_of(HERE / "test.csv")
labels_of = {"gold": {key: gold(row) for key, row in reviews.items()}}
for name, path in (word.split("=") for word in sys.argv[1:]):
    labels_of[name] = {row["id"]: row["word"] for row in rows_of(path)}

print(f"{'labels':<12}{'rows':>6}{'right':>7}{'accuracy on test':>18}{'95 % interval':>16}")
for name, labels in labels_of.items():
    right = sum(word == gold(reviews[key]) for key, word in labels.items())
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression())
    model.fit([reviews[key]["text"] for key in labels], list(labels.values()))
    said = model.predict([row["text"] for row in test])
    hits = sum(word == gold(row) for word, row in zip(said, test, strict=True))
    low, high = binomtest(hits, len(test)).proportion_ci(method="wilson")
    print(f"{name:<12}{len(labels):>6}{right / len(labels):>7.3f}{hits / len(test):>18.3f}{low:>9.2f} to {high:.2f}")
