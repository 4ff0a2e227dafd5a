"""Reading a crop from a source through a transform.

Two samplers of one behaviour: `differentiable.sample` (torch; training and accelerators) and `warp.warp` (OpenCV on
uint8, uint16 or float32; CPU inference). They are imported by module, so that the second never imports torch.
"""
