"""Names and colours of phases, links and sources; what reads results needs no matplotlib."""

# Colour and hatch of a phase, in the order of a forward pass. Communication is warm, expert work blue, attention green, moving
# rows about light blue, the rest grey; the hatch tells neighbours of one hue apart in print.
PHASES = {
    "embed": ("#999999", ""),
    "norm": ("#BBBBBB", ""),
    "mtp_project": ("#BBBBBB", "///"),
    "tp_all_gather": ("#F4A582", ""),
    "attention_qkv": ("#66C2A5", ""),
    "cp_exchange": ("#B2182B", ""),
    "attention_core": ("#009E73", ""),
    "attention_out": ("#66C2A5", "///"),
    "tp_reduce_scatter": ("#F4A582", "///"),
    "tp_all_reduce": ("#F4A582", "..."),
    "dense_mlp": ("#777777", ""),
    "latent_down": ("#7B6FB3", ""),
    "head_project": ("#9D93CC", ""),
    "head_scatter": ("#D55E00", "///"),
    "route": ("#F0E442", ""),
    "shared_expert": ("#4C9BD0", "..."),
    "permute": ("#A9D8F5", ""),
    "count_exchange": ("#CC79A7", ""),
    "dispatch": ("#D55E00", ""),
    "etp_all_gather": ("#FDDBC7", ""),
    "regroup": ("#56B4E9", ""),
    "expert": ("#0072B2", ""),
    "ungroup": ("#56B4E9", "///"),
    "etp_reduce_scatter": ("#FDDBC7", "///"),
    "combine": ("#E69F00", ""),
    "unpermute": ("#A9D8F5", "///"),
    "latent_up": ("#7B6FB3", "///"),
    "head_gather": ("#E69F00", "///"),
    "head_merge": ("#9D93CC", "///"),
    "lm_head": ("#555555", ""),
    "loss": ("#555555", "///"),
    "pipeline_stage": ("#4393C3", ""),
    "pipeline_weight": ("#5AAE61", ""),
    "pipeline_p2p": ("#B2182B", "///"),
    "pipeline_bubble": ("#F2F2F2", "xxx"),
    "grad_all_reduce": ("#8C510A", ""),
    "expert_grad_all_reduce": ("#8C510A", "///"),
    "offload": ("#80CDC1", ""),
    "host_optimizer": ("#333333", "..."),
    "optimizer": ("#333333", ""),
    "reload": ("#80CDC1", "///"),
    "param_all_gather": ("#BF812D", "///"),
    "others": ("#DDDDDD", ""),
}

LINKS = {
    "nvlink": ("#0072B2", ""),
    "pcie": ("#56B4E9", "///"),
    "nic": ("#D55E00", ""),
    "spine": ("#E69F00", "///"),
    "core": ("#CC79A7", ""),
}

# How a plan splits its MoE layer -> colour, marker and line of its plans, one after the other: EP in blues and black, HP in
# orange and red; marker and line tell them apart in grey.
LAYERS = {
    "expert_parallel": (
        ("#0072B2", "o", "-"),
        ("#56B4E9", "s", "--"),
        ("#000000", "^", ":"),
        ("#009E73", "v", "-."),
    ),
    "head_parallel": (("#D55E00", "D", "-"), ("#E69F00", "P", "--"), ("#CC79A7", "X", ":")),
}

SOURCES = {"predicted": "#0072B2", "simulated": "#009E73", "measured": "#D55E00"}
