#!/var/lang/bin/python3
"""Puts a function's secrets into its environment before anything else of it runs.

Lambda takes no environment from Secrets Manager, and what stands in a function's configuration is
read by whoever may describe it. So this is its ``AWS_LAMBDA_EXEC_WRAPPER``: Lambda runs it with the
runtime's command as its words. It asks for what ``SECRETS`` names, ``{"REDIS_URL": {"SecretId":
"arn:…", "VersionId": "…"}}`` (the arguments of GetSecretValue), and becomes the runtime.

It runs alone, as `secrets_first` at the root of the package, with the botocore of Lambda's Python.
"""

import json
import os
import sys

sys.path.append("/var/runtime")  # botocore's place in Lambda's Python before 3.12

import botocore.config
import botocore.session

TIMES = botocore.config.Config(
    connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 2}
)  # all of a start has 10 s


def main(words: list[str]) -> None:
    """Become the program that ``words`` say, with the secrets in its environment.

    Raises:
        BotoCoreError, ClientError: a secret cannot be had. Lambda shows it in the function's log,
            and starts anew at the next invocation.
    """
    asked = json.loads(os.environ.pop("SECRETS"))
    secrets = botocore.session.get_session().create_client("secretsmanager", config=TIMES)
    for name, which in asked.items():
        os.environ[name] = secrets.get_secret_value(**which)["SecretString"]
    os.execv(words[0], words)


if __name__ == "__main__":
    main(sys.argv[1:])
