"""Networks (torch): localization nets, the spatial transformer as a layer, a classifier of crops, and whole models.

`stn_cli.networks.config` describes them without torch.
"""
