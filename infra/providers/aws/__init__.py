"""Machines of Amazon EC2: the kind ``aws`` of a fleet file (``docs/providers.md``).

- ``settings`` - the table of the fleet file
- ``request``  - an order as the words of RunInstances
- ``reply``    - what EC2 tells of a machine or a disk, as the fleet's words
- ``errors``   - EC2's codes: which of them are a no, a wait, or an end
- ``prices``   - what types cost
- ``calls``    - boto3, bounded
- ``provider`` - the port
"""

from infra.providers.aws.provider import Ec2, open
from infra.providers.aws.settings import Settings

__all__ = ["Ec2", "Settings", "open"]
