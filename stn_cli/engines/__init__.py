"""Running a checkpoint: nets locate, a sampler reads the crop. No torch unless an accelerator is asked for."""
