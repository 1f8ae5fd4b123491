"""DADRN's two random splits: what is printed is their mean, and their lesions are never pooled."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_predictions import predictions
from lesiontraining.evaluation.paper_readings import dadrn_class_accuracy
from lesiontraining.reporting.two_splits import as_markdown, as_page, mean_of_splits

NAMES = ("Normal", "CYST", "HCC")


def share(hits: int, n: int) -> dict[str, float]:
    return {"hits": hits, "n": n, "low": 0.0, "high": 1.0}


def localised(*counts: tuple[int, int]) -> dict[str, dict]:
    figures = ("gt_known_iou_50", "gt_known_iou_30", "top_1", "pointing")
    return {"classes": {n: dict.fromkeys(figures, share(*c)) for n, c in zip(NAMES[1:], counts, strict=True)}}


def test_the_mean_over_both_splits_is_that_of_the_paper_and_not_of_pooled_lesions():
    first, second = predictions(30, classes=NAMES, seed=1), predictions(90, classes=NAMES, seed=2)
    found = mean_of_splits({"dadrn": [first, second]}, {})["dadrn"]
    accuracies = [list(one["classes"].values()) for one in (*found["splits"], found["mean"])]
    np.testing.assert_allclose(accuracies[2], np.mean(accuracies[:2], axis=0), atol=1e-4)
    matrices = [[[int(((p.labels == t) & (p.probabilities.argmax(1) == c)).sum()) for c in range(3)] for t in range(3)]
                for p in (first, second)]  # fmt: skip
    np.testing.assert_allclose(accuracies[2], dadrn_class_accuracy(np.array(matrices)), atol=1e-4)
    assert found["mean"]["columns"]["Acc"] == pytest.approx(np.mean(accuracies[2]), abs=1e-4)
    pooled = np.diag(np.sum(matrices, axis=0)) / np.sum(matrices, axis=(0, 2))
    assert not np.allclose(accuracies[2], pooled, atol=1e-3)


def test_localisation_is_counted_over_both_test_sets_as_the_papers_denominators_are():
    splits = [predictions(30, classes=NAMES, seed=seed) for seed in (1, 2)]
    maps = {"dadrn": [localised((40, 69), (10, 50)), localised((30, 68), (20, 51))]}
    found = mean_of_splits({"dadrn": splits, "drn": splits}, maps)
    assert found["dadrn"]["localisation"]["CYST"]["gt_known_iou_50"] == {"hits": 70, "n": 137}
    text = as_markdown(found)
    assert "| dadrn, IoU .5 | 70/137 (0.5109) | 30/101 (0.2970) |" in text
    assert text.count("mean of both") == 2
    assert "drn, IoU .5 | " in text
    assert "| drn, IoU" not in text


def test_the_page_of_both_splits_has_the_mean_the_maps_and_why_nothing_is_pooled():
    splits = [predictions(30, classes=NAMES, seed=seed) for seed in (1, 2)]
    maps = {"dadrn": [localised((40, 69), (10, 50)), localised((30, 68), (20, 51))]}
    found = mean_of_splits({"dadrn": splits, "drn": splits}, maps)
    text = as_page(found, "dadrn <b>", ["split-0", "split-1"])
    assert "dadrn &lt;b&gt;" in text
    assert "never pooled" in text
    assert all(f'<a href="{part}/report.html">' in text for part in ("split-0", "split-1"))
    assert text.count("<td>mean of both</td>") == 2
    assert f'<td class="n">{found["dadrn"]["mean"]["columns"]["Acc"]:.4f}</td>' in text
    assert '<td class="n">70 of 137, 0.511</td>' in text
    assert '<td>all</td><td>dadrn</td><td class="n">100 of 238, 0.420</td>' in text
    assert '<td>drn</td><td class="n">' not in text  # its maps were not looked at
