"""The heads of words, which K-Adapter's linguistic adapter learns."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from assembler.bundle.manifest import TextProcessor
from assembler.errors import AssemblerError
from components.heads._heads import DependencyHead
from components.heads.dependency import Sentences

TOKENIZER = Path(__file__).parents[2] / "components" / "encoders" / "example" / "tokenizer.json"


def sentences(length: int = 20) -> Sentences:
    return Sentences("parse", "text", "heads", TextProcessor(tokenizer=str(TOKENIZER), length=length, pad=0))


def test_a_word_is_its_first_token_and_the_root_the_first_of_all():
    rows = [{"text": "the  red, cat is small", "heads": "3 3 5 5 0"}, {"text": "a dog", "heads": "2 0"}]
    found = sentences()(rows)  # [CLS] the red , cat is small [SEP]
    assert found["words"].tolist() == [[1, 2, 4, 5, 6], [1, 2, -1, -1, -1]]
    assert found["heads"].tolist() == [[4, 4, 6, 6, 0], [2, 0, -1, -1, -1]]
    cut = sentences(length=4)([{"text": "a cat is", "heads": "3 3 0"}])  # [CLS] a cat [SEP]
    assert cut["words"].tolist() == [[1, 2, -1]] and cut["heads"].tolist() == [[-1, -1, 0]]


@pytest.mark.parametrize("heads", ["1", "1 3", "0 -1", "0 x"])
def test_heads_that_are_none_are_refused(heads):
    with pytest.raises(AssemblerError, match="a number from 0 to 2 for each"):
        sentences()([{"text": "a dog", "heads": heads}])


def test_the_loss_is_of_each_word_over_the_root_and_all_words():
    torch.manual_seed(0)
    head, x = DependencyHead(8, 4), torch.randn(2, 5, 8)
    words, heads = torch.tensor([[1, 3], [2, -1]]), torch.tensor([[3, 0], [0, -1]])
    scores = head(None, None, x)["logits"]
    told = [scores[0, i, j] for i in (1, 3) for j in (0, 1, 3)] + [scores[1, 2, j] for j in (0, 2)]
    true = torch.tensor([0.0, 0, 1, 1, 0, 0, 1, 0])
    wanted = F.binary_cross_entropy_with_logits(torch.stack(told), true)
    torch.testing.assert_close(head(words, heads, x)["loss"], wanted)
