"""The towers of a CLIP model in open_clip's architecture, with texts of any length and a guard on the activation."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import Tensor, nn

from data.params import UserError
from training.config import TowerSpec

MEAN = tuple(255 * v for v in (0.48145466, 0.4578275, 0.40821073))  # open_clip.constants.OPENAI_DATASET_MEAN
STD = tuple(255 * v for v in (0.26862954, 0.26130258, 0.27577711))
SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # open_clip.tokenizer.SimpleTokenizer.pat


class ClipImageTrunk(nn.Module):
    """open_clip image tower as uint8 (B, 3, H, W) to (B, D), projection included."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        from open_clip.model import CLIPVisionCfg, _build_vision_tower

        s = spec.shape
        self.net = _build_vision_tower(s["embed_dim"], CLIPVisionCfg(**s["vision_cfg"]), s["quick_gelu"])
        self.width = s["embed_dim"]
        self.register_buffer("mean", torch.tensor(spec.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net((pixels.float() - self.mean) / self.std)


class ClipTextTrunk(nn.Module):
    """open_clip text tower as ids (B, L) to (B, D), projection included, for any L up to the context length.

    The mask is causal and the feature is read at the end-of-text token, which has the highest id, so cutting off
    the padding behind it is exact; open_clip itself refuses texts shorter than its context.
    """

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        from open_clip.model import CLIPTextCfg, _build_text_tower

        s = spec.shape
        self.net = _build_text_tower(s["embed_dim"], CLIPTextCfg(**s["text_cfg"]), s["quick_gelu"])
        self.width = s["embed_dim"]
        if (
            getattr(self.net, "pool_type", None) != "argmax"
            or self.net.attn_mask is None
            or self.net.cls_emb is not None
        ):
            raise UserError(f"{spec.arch}: only causal CLIP text towers read at the end-of-text token are supported.")

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        net, length = self.net, ids.shape[1]
        x = net.token_embedding(ids) + net.positional_embedding[:length]
        x = net.ln_final(net.transformer(x, attn_mask=net.attn_mask[:length, :length]))
        last = ids.argmax(1)[:, None, None].expand(-1, 1, x.shape[2])
        pooled = x.gather(1, last).squeeze(1)
        return (
            net.text_projection(pooled) if isinstance(net.text_projection, nn.Linear) else pooled @ net.text_projection
        )


def quick_gelu_active(module: nn.Module) -> bool:
    """Whether the transformer blocks below `module` use QuickGELU. Raises `UserError` if blocks disagree."""
    from open_clip.transformer import QuickGELU

    found = {isinstance(m, QuickGELU) for m in module.modules() if isinstance(m, (QuickGELU, nn.GELU))}
    if len(found) != 1:
        raise UserError("The CLIP model mixes QuickGELU and GELU, or has neither; it cannot be an OpenAI-style CLIP.")
    return found.pop()


def pretrained(model: str, weights: str) -> tuple[TowerSpec, TowerSpec, dict[str, Tensor], float]:
    """Load a CLIP model: (image spec, text spec, state of its towers, logit scale).

    Args:
        model: an open_clip model name (`ViT-B-32-quickgelu`), or `hf-hub:owner/name`.
        weights: an open_clip tag (`openai`), a local file, or empty for `hf-hub:` models, which name their own.
    """
    import open_clip

    try:
        config = _model_config(model)
        clip = open_clip.create_model(model, pretrained=weights or None, force_custom_text=True, weights_only=True)
    except Exception as error:  # open_clip raises RuntimeError, OSError, hub errors and unpickling errors alike
        words = " ".join(str(error).split())
        raise UserError(f"base.clip: cannot load {model} with weights `{weights}`: {words}") from None
    active = quick_gelu_active(clip)
    if weights == "openai" and not active:
        raise UserError(f"base.clip: the OpenAI weights were trained with QuickGELU; use `{model}-quickgelu`.")
    common = {"embed_dim": config["embed_dim"], "quick_gelu": active}
    image = {**common, "vision_cfg": config["vision_cfg"]}
    text = {**common, "text_cfg": config["text_cfg"]}
    return (
        TowerSpec(kind="open_clip", arch=model, shape=image, mean=MEAN, std=STD),
        TowerSpec(kind="open_clip", arch=model, shape=text),
        clip.state_dict(),
        clip.logit_scale.item(),
    )


def _model_config(model: str) -> dict[str, Any]:
    import open_clip

    if model.startswith("hf-hub:"):
        return open_clip.factory._get_hf_config(model.removeprefix("hf-hub:"))["model_cfg"]
    config = open_clip.get_model_config(model)
    if config is None:
        near = difflib.get_close_matches(model, open_clip.list_models(), n=1)
        raise UserError(f"no open_clip model of that name{f'; did you mean {near[0]}?' if near else '.'}")
    return config


def tokenizer() -> Any:
    """CLIP's byte-pair tokenizer as a `tokenizers.Tokenizer`, from the vocabulary that ships with open_clip.

    Unlike open_clip's it does not guess at broken Unicode or HTML (ftfy, html.unescape); landing cleans texts.
    """
    from open_clip.tokenizer import SimpleTokenizer
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    source = SimpleTokenizer()
    vocabulary = dict(source.encoder)
    model = models.BPE(vocabulary, list(source.bpe_ranks), end_of_word_suffix="</w>", fuse_unk=False)
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="removed", invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    start, end = "<start_of_text>", "<end_of_text>"
    made.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])]
    )
    return made
