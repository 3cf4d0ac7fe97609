"""The decoder of queries: its attention is torch's, positions are where they should be, branches are shared or not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from frustum.errors import ShapeError
from frustum.nn.query_decoder import (
    Attention,
    DecoderLayer,
    GroupedBoxBranch,
    QueryDecoder,
    QueryPositions,
    Tokens,
    Votes,
    box_branch,
    class_branch,
    per_layer,
    token_branch,
)


def test_attention_equals_that_of_torch():
    ours, theirs = Attention(16, 4).eval(), nn.MultiheadAttention(16, 4, batch_first=True).eval()
    nn.init.normal_(theirs.in_proj_bias)
    ours.attn.load_state_dict(theirs.state_dict())  # the same names
    nn.init.normal_(ours.attn.in_proj_weight)
    theirs.load_state_dict(ours.attn.state_dict())
    query, key, value = torch.randn(2, 5, 16), torch.randn(2, 9, 16), torch.randn(2, 9, 16)
    torch.testing.assert_close(ours(query, key, value).queries, theirs(query, key, value)[0], atol=1e-5, rtol=1e-5)


def test_attention_keeps_half_precision_outside_and_drops_in_training_only():
    attention = Attention(16, 4, dropout=0.5)
    x = torch.randn(1, 6, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(x, x, x).queries.dtype == torch.bfloat16
    assert not torch.equal(attention(x, x, x).queries, attention(x, x, x).queries)
    attention.eval()
    assert torch.equal(attention(x, x, x).queries, attention(x, x, x).queries)


def test_heads_divide_the_channels():
    with pytest.raises(ShapeError, match="18 channels do not divide into 4 heads"):
        Attention(18, 4)


def test_keys_decide_where_a_query_looks_and_values_what_it_sees():
    layer, zeros = DecoderLayer(8, 2, 16, 0.0).eval(), torch.zeros(1, 3, 8)
    x, value, key = torch.randn(1, 3, 8), torch.randn(1, 5, 8), torch.randn(1, 5, 8)
    with torch.no_grad():
        assert not torch.allclose(layer(x, zeros, key, value).queries, layer(x, zeros, key + torch.randn(1, 5, 8), value).queries)
        layer.attentions[1].attn.in_proj_weight[:8] = 0  # queries that ask for nothing: all tokens count the same
        first, second = (layer(x, zeros, k, value).queries for k in (key, key + torch.randn(1, 5, 8)))
    torch.testing.assert_close(first, second)


def test_every_trainable_parameter_gets_a_gradient():
    decoder = QueryDecoder(2, 8, 2, 16)
    decoder(QueryPositions(torch.randn(2, 4, 8)), Tokens(torch.randn(2, 7, 8), torch.randn(2, 7, 8))).queries.square().sum().backward()
    dead = [name for name, p in decoder.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not dead
    assert not decoder.layers[0].attentions[0].attn.in_proj_weight.requires_grad  # queries that are all zero


def test_outputs_of_all_layers_and_the_shared_norm():
    decoder = QueryDecoder(3, 8, 2, 16).eval()
    query_pos, tokens = QueryPositions(torch.randn(2, 4, 8)), Tokens(torch.randn(2, 7, 8), torch.randn(2, 7, 8))
    found = decoder(query_pos, tokens).queries
    assert found.shape == (3, 2, 4, 8)
    with torch.no_grad():
        decoder.post_norm.weight.zero_()
        decoder.post_norm.bias.fill_(2.0)
    assert (decoder(query_pos, tokens).queries == 2).all()
    assert QueryDecoder(1, 8, 2, 16, post_norm=False).post_norm is None


def test_refinement_moves_the_queries_of_the_next_layer():
    decoder = QueryDecoder(3, 8, 2, 16, post_norm=False).eval()
    query_pos, tokens = QueryPositions(torch.randn(1, 4, 8)), Tokens(torch.randn(1, 7, 8), torch.randn(1, 7, 8))
    seen = []

    def refine(layer, answer):
        seen.append((layer, answer.queries))
        return query_pos

    same = decoder(query_pos, tokens, refine).queries
    torch.testing.assert_close(same, decoder(query_pos, tokens).queries)
    assert [layer for layer, _ in seen] == [0, 1]  # not after the last
    torch.testing.assert_close(seen[1][1], same[1])
    moved = decoder(query_pos, tokens, lambda layer, answer: QueryPositions(query_pos.embedding + 1)).queries
    torch.testing.assert_close(moved[0], same[0])
    assert not torch.allclose(moved[1], same[1])


def test_positions_in_values_are_seen_and_queries_begin_as_their_own():
    plain, decoder = QueryDecoder(1, 8, 2, 16).eval(), QueryDecoder(1, 8, 2, 16, position_in_values=True).eval()
    query_pos, memory = QueryPositions(torch.randn(1, 4, 8)), torch.randn(1, 1, 8)
    tokens = [Tokens(memory, torch.randn(1, 1, 8)) for _ in range(2)]  # one token: nothing but its value can matter
    with torch.no_grad():
        torch.testing.assert_close(*(plain(query_pos, t).queries for t in tokens))
        assert not torch.allclose(*(decoder(query_pos, t).queries for t in tokens))
    queries, keys, _ = decoder.layers[0].attentions[1].attn.in_proj_weight.chunk(3)
    assert torch.equal(queries, keys)
    assert decoder.layers[0].attentions[0].attn.in_proj_weight.requires_grad


def test_a_mask_hides_queries_from_each_other():
    decoder = QueryDecoder(2, 8, 2, 16).eval()
    embedding, tokens = torch.randn(1, 4, 8), Tokens(torch.randn(1, 7, 8), torch.randn(1, 7, 8))
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=torch.bool)
    alone = decoder(QueryPositions(embedding[:, :2]), tokens).queries
    torch.testing.assert_close(decoder(QueryPositions(embedding), tokens, mask=mask).queries[:, :, :2], alone)
    assert not torch.allclose(decoder(QueryPositions(embedding), tokens).queries[:, :, :2], alone)


def test_attention_with_votes_is_a_gaussian_around_the_query_times_the_score():
    attention = Attention(16, 4, votes=True).eval()
    query, key, value = torch.randn(2, 3, 16), torch.randn(2, 9, 16), torch.randn(2, 9, 16)
    votes = Votes(torch.randn(2, 3, 3) * 5, torch.randn(2, 9, 3) * 5 + torch.tensor([30.0, -20.0, 0.0]), torch.randn(2, 9))
    with torch.no_grad():
        attention.log_width.add_(torch.randn(4) * 0.2)
        attention.score_weight.mul_(torch.rand(4))
    weights, biases = attention.attn.in_proj_weight.chunk(3), attention.attn.in_proj_bias.chunk(3)
    q, k, v = (torch.nn.functional.linear(x, w, b).double() for x, w, b in zip((query, key, value), weights, biases, strict=True))
    content, offsets = [], []
    for head in range(4):
        part = slice(4 * head, 4 * head + 4)
        logits = q[..., part] @ k[..., part].mT / 2
        distance = (votes.queries[:, :, None, :2] - votes.tokens[:, None, :, :2]).double().square().sum(-1)
        logits = logits - distance / (2 * attention.log_width[head].exp() ** 2) + attention.score_weight[head] * votes.scores[:, None]
        share = logits.softmax(-1)
        content.append(share @ v[..., part])
        offsets.append((share @ votes.tokens.double()) - votes.queries)
    expected = attention.attn.out_proj(torch.cat(content, -1).float()) + attention.offset(torch.cat(offsets, -1).float().asinh())
    found = attention(query, key, value, votes=votes)
    torch.testing.assert_close(found.queries, expected, atol=1e-4, rtol=1e-4)
    weights = attention.choice(expected).softmax(-1)
    moved = sum(weights[..., head : head + 1] * offset for head, offset in enumerate(offsets))  # the last weight is that of staying
    torch.testing.assert_close(found.moved.double(), moved, atol=1e-3, rtol=1e-3)


def test_later_layers_look_for_votes_in_smaller_circles():
    decoder = QueryDecoder(3, 8, 4, 16, votes=True)
    widths = [layer.attentions[1].log_width.exp().tolist() for layer in decoder.layers]
    assert widths[0] == pytest.approx([2, 3, 4.5, 7])
    assert widths[2] == pytest.approx([0.5, 0.75, 1.125, 1.75])


def test_queries_move_where_tokens_vote():
    """All vote for one place: each layer goes towards it, and says how far."""
    decoder = QueryDecoder(2, 8, 2, 16, position_in_values=True, votes=True).eval()
    target, start = torch.tensor([4.0, -2.0, 1.0]), torch.tensor([[[0.0, 0.0, 0.0], [1.0, -6.0, 1.0]]])
    tokens = Tokens(torch.randn(1, 5, 8), torch.randn(1, 5, 8), target.expand(1, 5, 3), torch.zeros(1, 5))
    embedding, places = torch.randn(1, 2, 8), []

    def refine(layer, answer):
        places.append(start + answer.moved)
        return QueryPositions(embedding, places[-1])

    with torch.no_grad():
        moved = decoder(QueryPositions(embedding, start), tokens, refine).moved
    assert moved.shape == (2, 1, 2, 3)
    share = moved[0] / (target - start)
    torch.testing.assert_close(share[0, 0], share[0, 0, :1].expand(3))
    assert ((share[0, 0] > 0) & (share[0, 0] < 1)).all()
    assert ((target - places[0] - moved[1]).norm(dim=-1) < (target - places[0]).norm(dim=-1)).all()


def test_votes_stay_float32_under_autocast():
    attention, seen = Attention(16, 4, votes=True).eval(), []
    attention.offset.register_forward_pre_hook(lambda _, given: seen.append(given[0].float()))
    query, key, value = torch.randn(1, 3, 16), torch.randn(1, 40, 16), torch.randn(1, 40, 16)
    votes = Votes(torch.randn(1, 3, 3) * 45, torch.randn(1, 40, 3) * 45, torch.randn(1, 40))
    with torch.no_grad():
        attention.attn.in_proj_weight[:16] = 0  # places and scores alone decide, so that the precision of the content does not count
        attention(query, key, value, votes=votes)
        with torch.autocast("cpu", torch.bfloat16):
            attention(query, key, value, votes=votes)
    torch.testing.assert_close(seen[1], seen[0], atol=0.02, rtol=0.005)  # rounded once, afterwards


def test_a_token_answers_with_classes_and_an_offset():
    branch = token_branch(8, 10)
    assert branch(torch.randn(2, 7, 8)).shape == (2, 7, 14)  # ten classes, none, three metres


def test_branches():
    x = torch.randn(2, 3, 8)
    classes = class_branch(8, 5)
    assert classes(x).shape == (2, 3, 5)
    assert classes[-1].bias.sigmoid().tolist() == pytest.approx([0.01] * 5)
    assert box_branch(8)(x).shape == GroupedBoxBranch(8)(x).shape == (2, 3, 10)


def test_shared_branches_are_one_module_under_all_names():
    shared, own = (per_layer(lambda: box_branch(8), 3, together) for together in (True, False))
    assert shared[0] is shared[2]
    assert own[0] is not own[2]
    assert shared.state_dict().keys() == own.state_dict().keys()
    assert 3 * len(list(shared.parameters())) == len(list(own.parameters()))


def test_groups_of_a_box_code_have_networks_of_their_own():
    branch, x = GroupedBoxBranch(8), torch.randn(2, 3, 8)
    before = branch(x)
    with torch.no_grad():
        branch.task_heads[2][-1].bias += 1
    changed = (branch(x) - before).abs().amax((0, 1)) > 0.5
    assert changed.nonzero().flatten().tolist() == [3, 4, 5]
