"""Learning-rate schedules, against those of torch."""

import copy
import json
import pickle
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch.optim import lr_scheduler

from rnncore import schedules
from rnncore.schedules import (
    Cosine,
    Exponential,
    HalveOnRise,
    ReduceOnPlateau,
    Schedule,
    Step,
    WarmUp,
)

BASE, EPOCHS = 0.3, 12
LOSSES = [1.0, 0.8, 0.80005, 0.9, 0.85, 0.84, 0.79, 0.79, 0.795, 0.8, 0.81, 0.5, 0.5, 0.6, 0.7]
EVERY = [
    Step(3, 0.2),
    Exponential(0.7),
    Cosine(),
    Cosine(5, minimum=0.01),
    WarmUp(2),
    WarmUp(3, then="cosine", start_factor=0.25),
    WarmUp(1, then=ReduceOnPlateau(0.5, patience=1)),
    ReduceOnPlateau(0.1, patience=2, tol=0.01, minimum=0.001),
    HalveOnRise(0.25),
]


def rates(schedule: Schedule, losses=LOSSES, epochs=EPOCHS, val_losses=None):
    """Return the rates at both ends of every epoch."""
    counts, found = schedule.start(), []
    for epoch, loss in enumerate(losses):
        found.append(schedule.rates(BASE, epoch, epochs, counts))
        schedule.observe(epoch, loss, val_losses and val_losses[epoch], counts)
        counts = json.loads(json.dumps(counts))  # as a checkpoint does
    return found


def torchs(make, losses=LOSSES):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE)
    scheduler, found = make(optimizer), []
    for loss in losses:
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*[loss] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else ())
    return found


@pytest.mark.parametrize(
    ("schedule", "make", "losses"),
    [
        (Step(3, 0.2), lambda o: lr_scheduler.StepLR(o, 3, 0.2), LOSSES),
        (Exponential(0.7), lambda o: lr_scheduler.ExponentialLR(o, 0.7), LOSSES),
        (Cosine(), lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS), LOSSES[:EPOCHS]),
        (
            Cosine(8, minimum=0.02),
            lambda o: lr_scheduler.CosineAnnealingLR(o, 8, 0.02),
            LOSSES[:9],
        ),
        (WarmUp(4, start_factor=0.1), lambda o: lr_scheduler.LinearLR(o, 0.1, 1.0, 4), LOSSES),
        (
            WarmUp(3, then=Cosine(), start_factor=0.2),
            lambda o: lr_scheduler.SequentialLR(
                o,
                [
                    lr_scheduler.LinearLR(o, 0.2, 1.0, 3),
                    lr_scheduler.CosineAnnealingLR(o, EPOCHS - 3),
                ],
                [3],
            ),
            LOSSES[:EPOCHS],
        ),
        (
            ReduceOnPlateau(0.1, patience=1, tol=0.02, minimum=0.002),
            lambda o: lr_scheduler.ReduceLROnPlateau(
                o, factor=0.1, patience=1, threshold=0.02, min_lr=0.002
            ),
            LOSSES,
        ),
        (
            ReduceOnPlateau(0.5, patience=0),
            lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0),
            LOSSES,
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter")  # torch's SequentialLR warns of itself
def test_the_rate_of_every_epoch_is_torchs(schedule, make, losses):
    found = [first for first, _ in rates(schedule, losses)]
    assert found == pytest.approx(torchs(make, losses), rel=1e-12)


def test_halve_on_rise_halves_after_each_rise():
    found = rates(HalveOnRise(), [3.0, 2.0, 2.5, 2.5, 2.6, 1.0, 1.1])
    assert found == [(rate, rate) for rate in (0.3, 0.3, 0.3, 0.15, 0.15, 0.075, 0.075)]


def test_the_validation_loss_decides_what_a_plateau_is():
    schedule = ReduceOnPlateau(0.5, patience=0)
    falling, flat = [3.0, 2.0, 1.0], [1.0, 1.0, 1.0]
    assert rates(schedule, falling, val_losses=flat)[-1][0] == BASE / 2
    assert rates(schedule, flat, val_losses=falling)[-1][0] == BASE
    assert rates(schedule, [float("nan"), 1.0, 0.5], val_losses=None)[-1][0] == BASE / 2
    assert rates(HalveOnRise(), falling, val_losses=[1.0, 2.0, 3.0])[-1][0] == BASE


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_an_epoch_ends_where_the_next_begins_or_keeps_its_rate(schedule):
    found = rates(schedule)
    for epoch, (first, last) in enumerate(found[:-1]):
        warming = isinstance(schedule, WarmUp) and epoch < schedule.epochs
        inner = schedule.then if isinstance(schedule, WarmUp) and not warming else schedule
        if warming or isinstance(inner, Exponential | Cosine):
            assert last == pytest.approx(found[epoch + 1][0], rel=1e-12)
        else:
            assert last == first


def test_cosine_stays_at_its_minimum():
    assert rates(Cosine(3, minimum=0.1))[3:] == [(0.1, 0.1)] * (len(LOSSES) - 3)
    # One epoch, as partial_fit has, and a warm-up longer than the training.
    assert rates(WarmUp(2, then="cosine"), LOSSES[:4], epochs=1)[2:] == [(BASE, 0), (0, 0)]


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_schedules_are_values(schedule):
    for again in (
        pickle.loads(pickle.dumps(schedule)),
        copy.deepcopy(schedule),
        schedules.from_json(json.loads(json.dumps(schedule.to_json()))),
        eval(repr(schedule), vars(schedules)),
    ):
        assert again == schedule
        assert hash(again) == hash(schedule)
        assert again is not schedule
    assert schedule != Step(4, 0.2)
    with pytest.raises(FrozenInstanceError):
        schedule.factor = 0.5
    assert schedules.as_schedule("lr_schedule", schedule) is schedule


def test_schedules_by_name():
    of = {
        "step": Step(),
        "exponential": Exponential(),
        "cosine": Cosine(),
        "plateau": ReduceOnPlateau(),
        "halve_on_rise": HalveOnRise(),
    }
    for name, schedule in of.items():
        assert schedules.as_schedule("lr_schedule", name) == schedule
    assert schedules.as_schedule("lr_schedule", None) is None
    assert WarmUp(2, "step") == WarmUp(2, Step())


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Step(0), ValueError, "every: expected an integer >= 1, got 0"),
        (lambda: Step(2.0), TypeError, "every: expected an integer"),
        (lambda: Exponential(0), ValueError, "factor: expected a finite number > 0"),
        (lambda: HalveOnRise(1.5), ValueError, "factor: expected .* <= 1, got 1.5"),
        (lambda: Cosine(0), ValueError, "epochs: expected"),
        (lambda: Cosine(minimum=-1), ValueError, "minimum: expected"),
        (lambda: WarmUp(None), TypeError, "epochs: expected"),
        (lambda: WarmUp(2, "linear"), ValueError, "then: expected one of 'step'"),
        (lambda: WarmUp(2, start_factor=2), ValueError, "start_factor: expected"),
        (lambda: ReduceOnPlateau(patience=-1), ValueError, "patience: expected"),
        (lambda: ReduceOnPlateau(tol=1.0), ValueError, "tol: expected"),
        (lambda: ReduceOnPlateau(gamma=0.1), TypeError, "expected 'factor'"),
        (lambda: Cosine(T_max=3), TypeError, "expected 'epochs'"),
        (lambda: Cosine(eta_min=3), TypeError, "expected 'minimum'"),
        (lambda: schedules.as_schedule("lr_schedule", 3), TypeError, "lr_schedule: .* got int 3"),
        (lambda: schedules.as_schedule("lr_schedule", "x"), ValueError, "lr_schedule: .*'x'"),
        (lambda: schedules.as_schedule("lr_schedule", Step), TypeError, "a schedule of rnncore"),
    ],
)
def test_wrong_arguments_are_named(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
