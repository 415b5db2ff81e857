"""L2-SP: the backbone is drawn towards where it started, the head is not, and a resumed run knows the start."""

import pytest
import torch
from lightning.pytorch import Callback
from test_module import CLASSES, loader, module, state, trainer, unet

from riskft.errors import InputError
from riskft.training.l2sp import L2SP, backbone


@pytest.fixture
def source(tmp_path):
    torch.manual_seed(3)
    torch.save(
        {"state_dict": unet().state_dict(), "riskft": {"class_names": CLASSES, "in_channels": 1}}, tmp_path / "s.ckpt"
    )
    return str(tmp_path / "s.ckpt")


class Still(torch.optim.SGD):
    """Moves nothing by itself: what happens is the pull alone."""

    def step(self, closure=None):
        return None if closure is None else closure()


class Shift(Callback):
    """Moves all weights away from the source by 1 once training has begun."""

    @torch.no_grad()
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 0 and batch_idx == 0:
            for value in pl_module.network.parameters():
                value.add_(1)


def test_the_pull_by_hand(tmp_path, source):
    made = module(checkpoint=source, optimizer=lambda groups: Still(groups, lr=0.1), head_lr_factor=5)
    run = trainer(tmp_path, epochs=2, callbacks=[L2SP(alpha=2.0), Shift()])
    run.fit(made, loader(count=4, batch_size=2))  # 4 steps: (1 - 0.1 * 2)^4 is left of the distance
    start = torch.load(source, weights_only=True)["state_dict"]
    drawn = backbone(made)
    for name, value in made.network.named_parameters():
        left = 0.8**4 if name in drawn else 1.0
        torch.testing.assert_close(value.detach(), start[name] + left, atol=1e-6, rtol=1e-5)
    assert {name.rpartition(".")[0] for name, _ in made.network.named_parameters() if name not in drawn} <= set(
        made.head
    )
    assert 0 < len(drawn) < len(list(made.network.parameters()))


def test_alpha_0_is_plain_training_and_a_large_one_stays_at_the_source(tmp_path, source):
    found = {}
    for alpha in (None, 0.0, 1e9):
        made = module(checkpoint=source)
        callbacks = [] if alpha is None else [L2SP(alpha)]
        trainer(tmp_path, callbacks=callbacks).fit(made, loader())
        found[alpha] = state(made.network)
    assert all(torch.equal(found[None][key], found[0.0][key]) for key in found[None])
    start = torch.load(source, weights_only=True)["state_dict"]
    far = max(float((found[None][key] - start[key]).abs().max()) for key in backbone(made))
    near = max(float((found[1e9][key] - start[key]).abs().max()) for key in backbone(made))
    assert near < far  # one step away at most


def test_a_resumed_run_is_drawn_to_where_the_first_one_started(tmp_path, source):
    whole = module(checkpoint=source)
    trainer(tmp_path, epochs=2, callbacks=[L2SP(20.0)]).fit(whole, loader())

    class Stop(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / "last.ckpt")
            trainer.should_stop = True

    trainer(tmp_path, epochs=2, callbacks=[L2SP(20.0), Stop()]).fit(module(checkpoint=source), loader())
    resumed = module(checkpoint=source, seed=1)
    run = trainer(tmp_path, epochs=2, callbacks=[L2SP(20.0)])
    run.fit(resumed, loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[key], value, atol=1e-6, rtol=1e-5)


def test_it_needs_a_source(tmp_path):
    with pytest.raises(InputError, match=r"set model\.source\.checkpoint"):
        trainer(tmp_path, callbacks=[L2SP()]).fit(module(), loader())
    with pytest.raises(InputError, match="`alpha` to be at least 0"):
        L2SP(-1)
