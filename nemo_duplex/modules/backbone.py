"""The backbone: a Megatron-core GPT that steps on the clock, with a ring of keys and values as its state.

    x [B, T, D] -> Megatron transformer layers (RMSNorm, grouped attention, SwiGLU, rotary) -> hidden [B, T, D]

    ring, W = 4 slots:   frame  0 1 2 3 4 5        slot = frame mod W; keys are stored rotated, so their order in
                         slot   0 1 2 3 0 1        the ring does not matter to attention

Every row shares one counter of frames; a row that joins late starts with age 0 and sees only keys of its own age
(rotary positions are relative, so a late row equals a fresh session). A frame attends to itself and to the W-1 frames
before it, in training as in streaming, so a session longer than the ring stays exact.
Boundary: all of the package's Megatron imports stand in this file. Tested with megatron-core 0.16.1, whose private
`_adjust_key_value_for_inference` is the one hook that is overridden here. Works on CPU and GPU without a patch.
"""

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.inference.contexts import BaseInferenceContext
from megatron.core.models.common.embeddings import apply_rotary_pos_emb
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from nemo_duplex.config import BackboneConfig
from nemo_duplex.state import State, rows_on, shared


@dataclass
class BackboneState(State):
    """Keys and values of the last W frames.

    Attributes:
        keys, values: for each layer [W, B, G, d], G key/value groups of d channels; keys are rotated.
        age: [B] int64, frames that the row has lived.
        frame: the shared counter, index of the next frame.
    """

    keys: list[Tensor] = rows_on(1)
    values: list[Tensor] = rows_on(1)
    age: Tensor = rows_on(0)
    frame: int = shared()


class RingContext(BaseInferenceContext):
    """Carries the state through Megatron's layers for the T frames of one call."""

    def __init__(self, state: BackboneState, frames: int):
        super().__init__(materialize_only_last_token_logits=False)
        self.sequence_len_offset = 0
        self.batch_size_offset = 0
        self.state = state
        self.frames = frames
        self.ring = state.keys[0].shape[0]

    def is_static_batching(self) -> bool:
        return True

    def is_decode_only(self) -> bool:
        return False

    def mask(self) -> Tensor:
        """[B, 1, T, K] bool, True where attention is allowed; K as `exchange` returns the keys."""
        device = self.state.age.device
        now = self.state.frame + torch.arange(self.frames, device=device)
        held = self._held_frames(device)
        where = held if self.frames == 1 else torch.cat([held, now])
        started = self.state.frame - self.state.age
        recent = (where[None] <= now[:, None]) & (where[None] > now[:, None] - self.ring)
        return recent[None, None] & (where[None] >= started[:, None])[:, None, None]

    def _held_frames(self, device) -> Tensor:
        """Frame index in each used slot (after the write when T = 1, before it otherwise)."""
        last = self.state.frame if self.frames == 1 else self.state.frame - 1
        slots = torch.arange(min(last + 1, self.ring), device=device)
        return last - (last - slots) % self.ring

    def exchange(self, ring: Tensor, new: Tensor) -> Tensor:
        """Writes `new` [T, B, G, d] into the ring, in place, and returns the keys (or values) to attend to."""
        if self.frames == 1:
            ring[self.state.frame % self.ring] = new[0]
            return ring[: min(self.state.frame + 1, self.ring)]
        joined = torch.cat([ring[: min(self.state.frame, self.ring)], new])
        kept = min(self.frames, self.ring)
        last = self.state.frame + self.frames
        ring[torch.arange(last - kept, last, device=ring.device) % self.ring] = new[-kept:]
        return joined


class RingAttention(SelfAttention):
    """Megatron's self-attention; with a RingContext, keys and values come from the ring."""

    def _adjust_key_value_for_inference(self, context, query, key, value, rotary_pos_emb, *args, **kwargs):
        if context is None:
            return super()._adjust_key_value_for_inference(context, query, key, value, rotary_pos_emb, *args, **kwargs)
        group = self.pg_collection.cp
        query = apply_rotary_pos_emb(query, rotary_pos_emb[0], config=self.config, cp_group=group)
        key = apply_rotary_pos_emb(key, rotary_pos_emb[1], config=self.config, cp_group=group)
        index = self.layer_number - 1
        keys = context.exchange(context.state.keys[index], key)
        values = context.exchange(context.state.values[index], value)
        return query, keys, values, None, AttnMaskType.no_mask, None


class SdpaCore(MegatronModule):
    """Core attention by torch's scaled_dot_product_attention (flash kernels on a GPU, no TransformerEngine needed).

    [T, B, N, d] in, [T, B, N*d] out. `attention_mask` is True where attention is allowed; None means plain causal.
    """

    def __init__(self, config, layer_number, attn_mask_type, attention_type, softmax_scale=None, **unused):
        super().__init__(config=config)
        self.scale = softmax_scale

    def forward(self, query, key, value, attention_mask=None, **unused):
        query, key, value = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        grouped = query.shape[1] != key.shape[1]
        out = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attention_mask,
            is_causal=attention_mask is None,
            scale=self.scale,
            enable_gqa=grouped,
        )
        return out.permute(2, 0, 1, 3).flatten(2)


def _transformer_config(config: BackboneConfig) -> TransformerConfig:
    return TransformerConfig(
        num_layers=config.layers,
        hidden_size=config.width,
        num_attention_heads=config.heads,
        num_query_groups=config.kv_groups,
        ffn_hidden_size=config.ffn,
        layernorm_epsilon=config.norm_eps,
        normalization="RMSNorm",
        gated_linear_unit=True,
        activation_func=F.silu,
        add_bias_linear=False,
        attention_dropout=0.0,
        hidden_dropout=config.dropout,
        use_cpu_initialization=True,  # the same weights for any number of tensor-parallel ranks, and no GPU needed
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        bias_activation_fusion=False,
        apply_rope_fusion=False,
        gradient_accumulation_fusion=False,
        persist_layer_norm=False,
    )


class SoloGroup:
    """A tensor-parallel group of this process alone, for every program that has not set up Megatron's own groups."""

    def size(self) -> int:
        return 1

    def rank(self) -> int:
        return 0


def _join_process_group() -> None:
    """Megatron's layers ask torch.distributed even for a group of one: join torchrun's group, or be one by ourselves."""
    if torch.distributed.is_initialized():
        return
    if torch.distributed.is_torchelastic_launched():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    else:
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)


def _process_groups() -> ProcessGroupCollection:
    """Megatron's groups when the program has set them up (tensor parallelism), this process alone otherwise."""
    _join_process_group()
    if parallel_state.is_initialized():
        return ProcessGroupCollection.use_mpu_process_groups()
    solo = SoloGroup()
    return ProcessGroupCollection(tp=solo, cp=solo, pp=solo, tp_cp=solo, ep=solo, embd=None)


def _layer_spec():
    spec = copy.deepcopy(get_gpt_layer_local_spec(normalization="RMSNorm"))
    spec.submodules.self_attention.module = RingAttention
    spec.submodules.self_attention.submodules.core_attention = SdpaCore
    return spec


class Backbone(nn.Module):
    """Megatron-core GPTModel with its text embedding and output layer, used frame by frame or for many frames.

    Args:
        config: shape of the transformer.
        vocabulary: V, text ids.
    """

    def __init__(self, config: BackboneConfig, vocabulary: int):
        super().__init__()
        self.config = config
        self.gpt = GPTModel(
            config=_transformer_config(config),
            transformer_layer_spec=_layer_spec(),
            vocab_size=vocabulary,
            max_sequence_length=config.context_frames,
            position_embedding_type="rope",
            rotary_base=config.rotary_base,
            share_embeddings_and_output_weights=config.tie_embeddings,
            pg_collection=_process_groups(),
        )

    def embed_text(self, ids: Tensor) -> Tensor:
        """[B, T] text ids -> [B, T, D]."""
        return self.gpt.embedding.word_embeddings(ids)

    def text_logits(self, hidden: Tensor) -> Tensor:
        """[B, T, D] hidden -> [B, T, V] by the LLM's own output layer."""
        weight = self.gpt.shared_embedding_or_output_weight() if self.config.tie_embeddings else None
        return self.gpt.output_layer(hidden.transpose(0, 1), weight=weight)[0].transpose(0, 1)

    def initial_state(self, batch: int) -> BackboneState:
        """The state of `batch` fresh sessions."""
        attention = self.gpt.decoder.layers[0].self_attention
        weight = attention.linear_qkv.weight
        shape = (
            self.config.context_frames,
            batch,
            attention.num_query_groups_per_partition,
            attention.hidden_size_per_attention_head,
        )
        make = lambda: [weight.new_zeros(shape) for _ in range(self.config.layers)]  # noqa: E731
        return BackboneState(make(), make(), torch.zeros(batch, dtype=torch.long, device=weight.device), 0)

    def forward(self, x: Tensor, state: BackboneState | None = None) -> Tensor:
        """[B, T, D] fused embeddings -> [B, T, D] hidden after the final norm.

        With a state the T frames continue from it and it is advanced in place; without one they are a whole session.
        """
        frames = x.shape[1]
        context = None if state is None else RingContext(state, frames)
        hidden = self.gpt.decoder(
            hidden_states=x.transpose(0, 1).contiguous(),
            attention_mask=self._window_mask(frames, x.device) if context is None else context.mask(),
            inference_context=context,
            rotary_pos_emb=self._angles(0 if state is None else state.frame, frames, x.device),
        )
        if state is not None:
            state.frame += frames
            state.age += frames
        return hidden.transpose(0, 1)

    def _window_mask(self, frames: int, device) -> Tensor | None:
        """None (plain causal) while the session fits the window, else [1, 1, T, T]."""
        if frames <= self.config.context_frames:
            return None
        at = torch.arange(frames, device=device)
        back = at[:, None] - at[None]
        return ((back >= 0) & (back < self.config.context_frames))[None, None]

    def _angles(self, start: int, frames: int, device) -> Tensor:
        """[T, 1, 1, d] rotary angles in fp32, reduced to one turn in fp64 so that hour-long sessions keep their phase."""
        frequencies = self.gpt.rotary_pos_emb.inv_freq.to(device=device, dtype=torch.float64)
        at = torch.arange(start, start + frames, device=device, dtype=torch.float64)
        angles = torch.outer(at, frequencies).remainder(2 * math.pi).float()
        return torch.cat([angles, angles], dim=-1)[:, None, None, :]
