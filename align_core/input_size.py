"""The side to which a model resizes its images, told without building the model."""

from align_core.model_config import ModelConfig


def input_size_of(config: ModelConfig) -> int | None:
    """The side in pixels to which `align_core.models.build` lets this model resize images.

    None where it takes them at their size. The library that configures it is imported only where it has to be asked.
    """
    if config.input_size is not None:
        return config.input_size
    if config.timm is not None:
        import timm

        own = config.args.get("img_size")
        published = timm.get_pretrained_cfg(config.timm)
        return own if isinstance(own, int) else None if published is None else int(published.input_size[-1])
    if config.torchvision is not None:
        import torchvision

        members = torchvision.models.get_model_weights(config.torchvision)
        is_member = config.weights in members.__members__
        return int((members[config.weights] if is_member else members.DEFAULT).transforms().crop_size[0])
    return None
