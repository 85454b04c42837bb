"""The gradient of self-critical training is that of the expected reward."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

from unrolled.models.captioner import PictureFeatures
from unrolled.models.captioners import CAPTIONERS
from unrolled.tasks.self_critical import SelfCritical

END, LONGEST = 4, 3


@pytest.mark.parametrize("baseline", ["greedy", "samples"])
@pytest.mark.parametrize("kind", ["show-and-tell", "show-attend-tell"])
def test_the_gradient_is_that_of_the_expected_reward(kind, baseline):
    torch.manual_seed(1)
    model = CAPTIONERS[kind](END + 1, 3, 3, "gru", unknown=0, embedding_size=4, hidden_size=5, dropout=0.0).train()
    picture = PictureFeatures(torch.randn(1, 3), torch.randn(1, 4, 3))
    learning = SelfCritical([[(1, 2), (1, 3, 2)], [(3,), (2, 2)]], END, LONGEST, baseline)
    texts = [text for length in range(LONGEST + 1) for text in itertools.product((1, 2, 3), repeat=length)]
    rewards = learning.rewards([np.array(text, np.int64) for text in texts], [0] * len(texts))
    expected, total = torch.zeros(()), 0.0
    for text, reward in zip(texts, rewards, strict=True):
        targets = [*text, END] if len(text) < LONGEST else [*text]
        logits = model(picture, torch.tensor([END, *targets[:-1]]).unsqueeze(-1))[:, 0]
        logits[:, 0] = -torch.inf
        log_prob = log_softmax(logits, -1)[range(len(targets)), targets].sum()
        expected, total = expected + reward * log_prob.exp(), total + float(log_prob.exp())
    assert total == pytest.approx(1, abs=1e-5)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    wanted = torch.autograd.grad(-expected, weights, allow_unused=True)
    count = 40_000
    found = torch.autograd.grad(learning.loss(model, picture, [0], count) / count, weights, allow_unused=True)
    ours, theirs = (torch.cat([g.flatten() for g in some if g is not None]) for some in (found, wanted))
    assert torch.cosine_similarity(ours, theirs, 0) > 0.99
    assert float(ours.norm() / theirs.norm()) == pytest.approx(1, abs=0.1)
