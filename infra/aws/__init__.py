"""Vestibule in AWS: ``command`` its words · ``package`` the functions as a zip (``runtime`` what it
is for, ``modules`` what it holds of ours, ``bytecode``, ``archive`` its bytes) · ``secrets_first``
what runs before them · ``deploy``, ``status`` and ``destroy`` over one ``deployment`` (``program``
runs Terraform, ``terraform/`` is what it reads).
"""
