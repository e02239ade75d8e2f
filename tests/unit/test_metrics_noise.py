"""Label noise: what the audit finds where the truth is known, and what it must not claim.

The bars are those the project set itself: 2,000 clips, a tenth of the old labels flipped.
"""

from collections import Counter

import numpy as np
import polars as pl
import pytest

from emer_ray.metrics import noise, stats
from tests import planted
from tests.planted import Evidence, Flips, Planted, Support, average_precision

SEEDS = 20


def find(corpus: Planted, resamples: int = 200) -> noise.Findings:
    at = np.arange(len(corpus.old))
    return noise.findings(
        np.eye(corpus.strength.shape[1])[corpus.old],
        corpus.old,
        noise.features(corpus.strength, corpus.guess),
        corpus.strength[at, corpus.old] <= 0,
        stats.blocks(pl.Series(corpus.clip_ids())),
        resamples=resamples,
    )


def found_on_top(findings: noise.Findings, corpus: Planted, share: float = 0.1) -> float:
    top = np.argsort(-findings.suspicion, kind="stable")[: int(share * len(corpus.old))]
    return float(corpus.wrong[top].sum() / corpus.wrong.sum())


@pytest.mark.parametrize(
    ("classes", "flips", "even"), [(4, "uneven", True), (6, "uniform", False), (8, "pair", True)]
)
def test_clean_evidence_finds_planted_errors(classes: int, flips: Flips, even: bool) -> None:
    corpus = planted.corpus(1, classes=classes, flips=flips, even=even, evidence="clean")
    findings = find(corpus)
    assert found_on_top(findings, corpus) >= 0.8
    assert findings.suspect.sum() == pytest.approx(corpus.wrong.sum(), rel=0.05)
    assert corpus.wrong[findings.suspect].mean() > 0.95
    assert findings.rate == pytest.approx(0.1, abs=0.03)
    assert findings.low <= 0.1 <= findings.high < 0.13


@pytest.mark.parametrize(
    ("evidence", "support", "flips", "classes", "even"),
    [
        ("rows", "none", "uniform", 6, True),
        ("partner", "several", "uneven", 8, False),
    ],
)
def test_over_twenty_seeds_of_weak_evidence(
    evidence: Evidence, support: Support, flips: Flips, classes: int, even: bool
) -> None:
    counts: Counter[str] = Counter()
    for seed in range(SEEDS):
        corpus = planted.corpus(
            seed, evidence=evidence, support=support, flips=flips, classes=classes, even=even
        )
        findings = find(corpus)
        counts["covered"] += findings.low <= corpus.wrong.mean() <= findings.high
        counts["better"] += average_precision(findings.suspicion, corpus.wrong) > (
            average_precision((corpus.guess != corpus.old).astype(float), corpus.wrong)
        )
        counts["bounded"] += findings.high < 0.5
    assert counts["covered"] >= 18
    assert counts["better"] >= 18
    assert counts["bounded"] == SEEDS, "a bound that excludes nothing is no bound"


@pytest.mark.parametrize(("support", "classes"), [("none", 6), ("empty", 4)])
def test_evidence_at_chance_claims_nothing(support: Support, classes: int) -> None:
    for seed in range(SEEDS // 2):
        corpus = planted.corpus(seed, evidence="chance", support=support, classes=classes)
        findings = find(corpus)
        assert not findings.claims
        assert not findings.suspect.any()
        assert (findings.rate, findings.confident_rate) == (None, None)
        assert (findings.low, findings.high) == (0.0, 1.0)


def test_weak_evidence_names_no_rate_and_few_suspects() -> None:
    corpus = planted.corpus(3, accuracy=0.35, evidence="uniform")
    findings = find(corpus)
    assert findings.claims
    assert findings.rate is None
    assert findings.low <= 0.1 <= findings.high
    assert findings.suspect.mean() < 0.02


def test_evidence_that_knows_when_it_is_sure_gives_a_better_rate() -> None:
    blind = find(planted.corpus(5, support="empty")).rate
    knowing = find(planted.corpus(5, support="informative")).rate
    assert blind is not None
    assert knowing is not None
    assert abs(knowing - 0.1) < abs(blind - 0.1)


def test_two_labellings_alone_never_tell_which_of_them_is_wrong() -> None:
    """Why the lower bound is 0: other causes, the same tables, so no estimator can tell them
    apart.
    """
    each = np.full(3, 1 / 3)
    noisy = 0.85 * np.eye(3) + 0.05
    by_labels = np.einsum("k,ka,kb->ab", each, noisy, np.eye(3))
    by_evidence = np.einsum("k,ka,kb->ab", each, np.eye(3), noisy)
    assert np.allclose(by_labels, by_evidence)


def test_the_upper_bound_holds_where_errors_meet() -> None:
    """Agreement is at most the share of right labels, whatever the evidence is."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        classes = int(rng.integers(2, 7))
        labels = rng.dirichlet(np.ones(classes), size=classes)
        labels += 1.01 * np.diag(labels.max(axis=1))  # each label more often right than any other
        labels /= labels.sum(axis=1, keepdims=True)
        evidence = rng.dirichlet(np.ones(classes), size=classes)
        truth = rng.dirichlet(np.ones(classes))
        joint = np.einsum("k,ka,kb->ab", truth, labels, evidence)
        wrong = 1 - (truth * np.diag(labels)).sum()
        assert wrong <= 1 - joint.max(axis=0).sum() + 1e-12


def test_the_calibration_recovers_frequencies() -> None:
    rng = np.random.default_rng(0)
    evidence = np.eye(2)[rng.integers(0, 2, 4000)]
    chance = np.where(evidence[:, 0] == 1, 0.8, 0.3)
    old = np.eye(2)[(rng.random(4000) > chance).astype(int)]
    weights = noise.fitted(evidence, old)
    seen = noise.predicted(weights, np.eye(2))
    for value in (0, 1):
        observed = old[evidence[:, value] == 1].mean(axis=0)
        assert seen[value] == pytest.approx(observed, abs=0.005)


def test_no_clip_is_judged_by_its_own_label() -> None:
    corpus = planted.corpus(2, clips=400)
    evidence = noise.features(corpus.strength, corpus.guess)
    folds = np.arange(400) % 4
    old = np.eye(6)[corpus.old]
    before, _ = noise.cross_fitted(evidence, old, folds)
    old[0] = np.roll(old[0], 1)
    after, _ = noise.cross_fitted(evidence, old, folds)
    mine = folds == 0
    assert np.array_equal(before[mine], after[mine])
    assert not np.allclose(before[~mine], after[~mine], atol=1e-6)


def test_clusters_are_never_split_between_folds() -> None:
    blocks = stats.blocks(pl.Series([f"speaker-{number % 12}" for number in range(600)]))
    folds = noise._folds(blocks)
    assert len(np.unique(folds)) == noise.N_FOLDS
    for block in blocks.unique():
        assert len(np.unique(folds[(blocks == block).to_numpy()])) == 1


def test_confident_learning_by_hand() -> None:
    expected = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3], [0.55, 0.45]])
    old = np.array([0, 0, 1, 1, 1])
    # a family's threshold is what its own clips expect on average, here 0.75 and 0.5167
    assert noise.confident(expected, old).tolist() == [0, -1, 1, -1, -1]
    swapped = np.array([0, 0, 1, 1, 0])
    # now 0.6833 and 0.55: clip 3 carries 1 and is sure of 0
    assert noise.confident(expected, swapped).tolist() == [0, -1, 1, 0, -1]
    sure = noise.confident(expected, swapped)
    rate = noise.confident_rate(sure, np.eye(2)[swapped] > 0, swapped)
    assert rate == pytest.approx((0 * 3 + 0.5 * 2) / 5)
    assert noise.confident_rate(sure, np.ones((5, 2), bool), swapped) == 0
    assert noise.confident_rate(np.full(5, -1), np.eye(2)[swapped] > 0, swapped) is None
