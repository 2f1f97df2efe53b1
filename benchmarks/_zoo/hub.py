"""Backbones of KerasHub, the smallest that still have all their parts."""

import numpy as np
from keras_hub import models

from .data import images, signals, together, tokens
from .registry import architecture

LENGTH, VOCABULARY = 12, 50
SMALL = {"vocabulary_size": VOCABULARY, "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 32}
HEADS = {**SMALL, "num_heads": 2}


def _mask(count, generator):
    ends = generator.integers(LENGTH // 2, LENGTH + 1, (count, 1))
    return (np.arange(LENGTH) < ends).astype("int32")


def _zeros(count, generator):
    return np.zeros((count, LENGTH), "int32")


WORDS = together(padding_mask=_mask, token_ids=tokens(LENGTH, VOCABULARY))
SEGMENTS = together(padding_mask=_mask, segment_ids=_zeros, token_ids=tokens(LENGTH, VOCABULARY))
PAIRS = together(
    decoder_padding_mask=_mask,
    decoder_token_ids=tokens(LENGTH, VOCABULARY),
    encoder_padding_mask=_mask,
    encoder_token_ids=tokens(LENGTH, VOCABULARY),
)


def _hub(data, *traits, **options):
    return architecture("hub", data, "composite", *traits, seconds=2, **options)


@_hub(SEGMENTS)
def hub_bert():
    return models.BertBackbone(**HEADS, max_sequence_length=LENGTH)


@_hub(WORDS)
def hub_distilbert():
    return models.DistilBertBackbone(**HEADS, max_sequence_length=LENGTH)


@_hub(SEGMENTS)
def hub_albert():
    return models.AlbertBackbone(**HEADS, embedding_dim=8, max_sequence_length=LENGTH)


@_hub(WORDS)
def hub_deberta():
    return models.DebertaV3Backbone(**HEADS, max_sequence_length=LENGTH, bucket_size=4)


@_hub(together(segment_ids=_zeros, token_ids=tokens(LENGTH, VOCABULARY)))
def hub_fnet():
    return models.FNetBackbone(**SMALL, max_sequence_length=LENGTH)


@_hub(WORDS)
def hub_gpt2():
    return models.GPT2Backbone(**HEADS, max_sequence_length=LENGTH)


@_hub(WORDS)
def hub_opt():
    return models.OPTBackbone(**HEADS, max_sequence_length=LENGTH)


@_hub(WORDS)
def hub_bloom():
    return models.BloomBackbone(**HEADS)


@_hub(WORDS, "no_config")
def hub_llama():
    return models.LlamaBackbone(**SMALL, num_query_heads=2, num_key_value_heads=1)


@_hub(WORDS, "no_config")
def hub_gemma():
    return models.GemmaBackbone(**SMALL, num_query_heads=2, num_key_value_heads=1, head_dim=8)


@_hub(WORDS)
def hub_phi3():
    return models.Phi3Backbone(**SMALL, num_query_heads=2, num_key_value_heads=1)


@_hub(WORDS, "no_config")
def hub_qwen3():
    return models.Qwen3Backbone(**SMALL, num_query_heads=2, num_key_value_heads=1, head_dim=8)


@_hub(PAIRS, "no_config")
def hub_t5():
    return models.T5Backbone(**HEADS)


@_hub(
    together(
        decoder_padding_mask=_mask,
        decoder_token_ids=tokens(LENGTH, VOCABULARY),
        encoder_features=signals(24, 8),
    ),
    "no_config",
)
def hub_whisper():
    sizes = {"num_mels": 8, "max_encoder_sequence_length": 24, "max_decoder_sequence_length": LENGTH}
    return models.WhisperBackbone(**HEADS, **sizes)


@_hub(images(32, 32, 3), "no_config")
def hub_vit():
    return models.ViTBackbone((32, 32, 3), 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)


@_hub(images(32, 32, 3), "no_config")
def hub_deit():
    return models.DeiTBackbone((32, 32, 3), 8, num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32)


@_hub(images(32, 32, 3), "no_config")
def hub_swin():
    return models.SwinTransformerBackbone((32, 32, 3), embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=4)


@_hub(images(32, 32, 3), "no_config")
def hub_mit():
    return _mit()


def _mit():
    return models.MiTBackbone(
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        hidden_dims=[8, 16],
        image_shape=(32, 32, 3),
    )


@_hub(images(32, 32, 3))
def hub_mobilenet():
    return models.MobileNetBackbone(
        stackwise_expansion=[[16, 24], [32, 48]],
        stackwise_num_blocks=[2, 2],
        stackwise_num_filters=[[8, 8], [16, 16]],
        stackwise_kernel_size=[[3, 3], [5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish"]],
        stackwise_padding=[[1, 1], [2, 2]],
        output_num_filters=24,
        depthwise_filters=8,
        depthwise_stride=1,
        depthwise_residual=False,
        last_layer_filter=24,
        squeeze_and_excite=0.5,
        input_num_filters=8,
        image_shape=(32, 32, 3),
    )


@_hub(images(32, 32, 3))
def hub_resnet():
    return models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(32, 32, 3),
    )


@_hub(images(32, 32, 3))
def hub_cspnet():
    return models.CSPNetBackbone(
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 2],
        stackwise_strides=[1, 2],
        stackwise_num_filters=[16, 24],
        block_type="dark_block",
        stage_type="dark",
        image_shape=(32, 32, 3),
    )


@_hub(images(32, 32, 3))
def hub_densenet():
    return models.DenseNetBackbone(stackwise_num_repeats=[2, 2], growth_rate=8, image_shape=(32, 32, 3))


@_hub(images(32, 32, 3))
def hub_hgnet():
    return models.HGNetV2Backbone(
        depths=[1, 2],
        embedding_size=8,
        hidden_sizes=[16, 24],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=True,
        stackwise_stage_filters=[(8, 8, 16, 1, 1, 3), (16, 12, 24, 2, 1, 3)],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, True],
        image_shape=(32, 32, 3),
    )


@_hub(images(32, 32, 3))
def hub_xception():
    return models.XceptionBackbone([[8, 12], [16, 16]], [True, False], image_shape=(32, 32, 3))
