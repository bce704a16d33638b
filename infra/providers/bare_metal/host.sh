#!/bin/sh
# What is done on a host, in steps that may be repeated: host.sh FOLDER COMMAND [ARGUMENTS].
# Answers in lines "name value", the last one "end": without it, nothing is to be believed. All that
# is put on the host lies in FOLDER. Whose it is says the file `claim`, the first to come and the
# last to go. Processes are known by a mark in their environment, which their children inherit.
set -eu
umask 077

say() { # it is only for people: a disk that is full keeps no step from going on
  { printf '%s\n' "$1" > phase.new && mv phase.new phase; echo "--- $1"; } 2> /dev/null || true
}

interrupted() { # STATUS: by a signal that whoever shuts down sends: it is to be resumed
  case $1 in 129 | 130 | 143) ;; *) return 1 ;; esac
}

fail() { # CODE WORDS: it can never become ready
  status=$?
  ! interrupted "$status" || exit "$status"
  printf '%s %s\n' "$1" "$2" > failure.new && mv failure.new failure
  exit 1
}

# --- processes ------------------------------------------------------------------------------------

pids() { # MARK
  grep -lzxF "$1=$folder" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3 || true
}

detach() { # MARK COMMAND: this script again, in a session of its own
  rm -f "$folder/began.$2"
  env -u INSTALLER_OF_VESTIBULE "$1=$folder" setsid sh "$folder/host.sh" "$folder" "$2" </dev/null >>"$2.log" 2>&1 &
  tries=0
  until [ -e "$folder/began.$2" ] || [ ! -e "$folder/host.sh" ] || [ "$tries" -ge 100 ]; do
    tries=$((tries + 1)); sleep 0.1
  done
}

kill_all() { # MARK: what is left is killed
  for pid in $(pids "$1"); do kill -KILL "$pid" 2>/dev/null || true; done
}

container() { # how it is, in Docker's word; nothing when there is none, unknown without an answer
  [ -e container ] || return 0
  known=$(docker container ls --all --quiet --filter "name=^/?$(cat container)\$" 2>/dev/null) ||
    { echo unknown; return 0; }
  [ -z "$known" ] ||
    docker inspect --format '{{.State.Status}}' "$(cat container)" 2>/dev/null || echo unknown
}

marked() {
  [ -z "$(pids AGENT_OF_VESTIBULE)" ] || return 0
  case $(container) in
    running) ;;
    unknown) echo "Docker does not answer" >&2; exit 1 ;;
    *) return 1 ;;
  esac
}

runs() { # who is not there is looked for again: in the midst of an exec a process shows no mark
  looks=0
  until marked; do
    looks=$((looks + 1))
    [ -e started ] && [ "$looks" -lt 4 ] || return 1
    sleep 0.2
  done
}

# --- looking and claiming -------------------------------------------------------------------------

look() {
  if cd "$folder" 2>/dev/null && [ -e claim ]; then
    echo "claim $(cat claim)"
    [ ! -e phase ] || echo "phase $(cat phase)"
    [ ! -e failure ] || echo "failure $(cat failure)"
    [ ! -e ending ] || echo "ending yes"
    [ ! -e started ] || echo "started yes"
    [ -z "$(pids INSTALLER_OF_VESTIBULE)" ] || echo "installing yes"
    if runs; then echo "running yes"; news
    elif [ -e started ]; then words serve.log
    fi
    [ ! -e failure ] || words install.log
  elif [ -n "$(pids AGENT_OF_VESTIBULE)" ]; then
    echo "an agent of $folder runs, and its claim is away: end it, or bring the folder back" >&2
    exit 1
  fi
  echo end
}

words() { # LOG: its last lines, for people; who reads them takes secrets out before he cuts them
  if [ "$(cat way 2>/dev/null)" = docker ] && [ "$1" = serve.log ]; then
    docker logs --tail 5 "$(cat container)" 2>&1 | tail -c 4000 | sed 's/^/said /' || true
  else
    tail -n 5 "$1" 2>/dev/null | tail -c 4000 | sed 's/^/said /' || true
  fi
}

news() { # what a running agent says of how it stands with admission
  if [ -e container ]; then docker logs --tail 200 "$(cat container)" 2>&1
  else tail -n 200 serve.log 2>/dev/null
  fi | sed -n 's/.* agent admission state=/admission /p' | tail -n 1
}

claim() { # DEPLOYMENT INSTANCE NOW_MS
  if ! mkdir -p "$folder" 2>/dev/null || ! cd "$folder" || [ ! -w . ]; then
    echo "trouble $folder cannot be written by $(id -un)"
  elif [ ! -e vestibule ] && [ ! -e claim ] && [ -n "$(ls -A)" ]; then
    echo "trouble $folder holds other things: it is not ours to clear"
  elif ! chmod 700 . 2>/dev/null; then
    echo "trouble $folder is not $(id -un)'s own"
  elif ! written "$@" 2>/dev/null; then
    echo "trouble $folder cannot be written by $(id -un): its disk may be full"
  # A link is made whole or not at all, and never over another. What else lies here is what an end
  # that broke off has left.
  elif ln "claim.$$" claim 2>/dev/null; then
    clear_all
  elif [ -e claim ] && [ ! -s claim ]; then
    echo "trouble the claim in $folder names nobody: remove it if nothing runs there"
  fi
  rm -f "claim.$$"
  look
}

written() { # DEPLOYMENT INSTANCE NOW_MS: on disk, so that a power cut leaves no empty claim
  printf '' > vestibule && printf '%s %s %s\n' "$@" > "claim.$$" && { sync "claim.$$" || sync; }
}

ours() { # DEPLOYMENT INSTANCE
  cd "$folder" 2>/dev/null || return 1
  [ -e claim ] && read -r deployment instance _ < claim || return 1
  [ "$deployment $instance" = "$1 $2" ]
}

# --- installing -----------------------------------------------------------------------------------

begin() { # DEPLOYMENT INSTANCE, and the files as a tar on standard input
  if ! ours "$1" "$2" || [ -e ending ] || [ -n "$(pids INSTALLER_OF_VESTIBULE)" ]; then
    cat > /dev/null
  else
    rm -rf new && mkdir new
    tar -xf - -C new
    [ -e new/complete ] || { echo "trouble the files did not arrive whole"; look; return; }
    rm new/complete
    for file in new/*; do mv -f "$file" .; done
    rmdir new
    detach INSTALLER_OF_VESTIBULE install
  fi
  look
}

once() { # PHASE COMMAND...: what was done is not done again when an installation is resumed
  [ ! -e "done.$1" ] || return 0
  shift_phase=$1; shift
  "$@"
  sync -f . 2> /dev/null || sync
  : > "done.$shift_phase"
}

explain() { # in whatever way it ends: why, unless it was interrupted and is to be resumed
  status=$?
  if [ "$status" -ne 0 ] && ! interrupted "$status" && [ ! -e failure ]; then
    printf 'INSTALL_FAILED %s\n' "$(cat phase 2>/dev/null)" > failure.new && mv failure.new failure
  fi
}

install() {
  cd "$folder"
  trap explain EXIT
  : > began.install
  rm -f failure
  . ./install.conf
  [ "$way" != auto ] || [ ! -e way ] || way=$(cat way)  # as it was begun
  if [ "$way" = auto ]; then
    if docker info > /dev/null 2>&1; then way=docker; else way=process; fi
  fi
  echo "$way" > way
  verify
  if [ "$way" = docker ]; then in_container; else as_process; fi
  say "its agent starts"
}

verify() {
  say "checks the agent's checksum"
  found=$(sha256sum < agent.py | cut -c1-64)
  [ "$found" = "$checksum" ] || fail AGENT_CHECKSUM_FAILED "agent.py on the host is $found"
}

as_process() {
  if [ -z "$python" ]; then
    say "installs the agent's libraries"
    once libraries make_environment venv --no-deps --only-binary=:all: --require-hashes \
      -r requirements.txt
    python=venv/bin/python
  fi
  "$python" -c 'import aiohttp' || fail INSTALL_FAILED "$python has not the agent's libraries"
  if [ -z "$vllm" ]; then
    say "installs vLLM"
    once vllm make_environment engine "$vllm_package"
    vllm=$folder/engine/bin/vllm
  fi
  command -v "$vllm" > /dev/null || fail INSTALL_FAILED "there is no executable $vllm"
  verify  # minutes may have passed
  printf '%s\n' "$python" > python
  printf '%s\n' "$vllm" > vllm
  : > started
  [ -n "$(pids AGENT_OF_VESTIBULE)" ] || detach AGENT_OF_VESTIBULE serve
}

make_environment() { # FOLDER, and what pip is to install
  python3 -m venv "$1" || fail INSTALL_FAILED "python3 cannot make a virtual environment"
  into=$1; shift
  "$into/bin/python" -m pip install --disable-pip-version-check --no-input --quiet "$@"
}

serve() {
  cd "$folder"
  while IFS= read -r line; do export "$line"; done < worker.env
  export HOME="$folder/state" VESTIBULE_STATE_DIR="$folder/state" VESTIBULE_VLLM="$(cat vllm)"
  mkdir -p state
  python=$(cat python)
  case $python in /*) ;; */*) python=$folder/$python ;; esac
  echo $$ > agent.pid
  : > began.serve
  exec "$python" "$folder/agent.py"
}

in_container() {
  echo "vestibule-$name" > container
  say "waits for Docker"
  tries=0
  until docker info > /dev/null 2>&1; do  # after a reboot it comes later than sshd
    [ "$tries" -lt 60 ] || fail INSTALL_FAILED "Docker does not answer"
    tries=$((tries + 1)); sleep 1
  done
  say "builds the worker's image"
  mkdir -p image
  for file in Dockerfile entrypoint agent.py healthcheck.py requirements.txt; do
    cp "$file" image/
  done
  tag=vestibule-worker:$name
  once image docker build --quiet --build-arg "IMAGE=$image" --tag "$tag" image
  say "checks the agent's checksum in the image"
  found=$(docker run --rm --entrypoint sha256sum "$tag" /opt/vestibule/agent.py | cut -c1-64)
  [ "$found" = "$checksum" ] || fail AGENT_CHECKSUM_FAILED "agent.py in the image is $found"
  docker rm --force "vestibule-$name" > /dev/null 2>&1 || true
  say "starts the container"
  # The operator's words for this kind of card; the group of a device is found out here.
  eval "set -- $docker_words"
  docker run --detach --name "vestibule-$name" --restart unless-stopped \
    --stop-timeout "$grace" --publish "$port:$port" --volume "vestibule-$name:/state" \
    --env-file worker.env "$@" "$tag"
  : > started
}

# --- the end --------------------------------------------------------------------------------------

finish() { # DEPLOYMENT INSTANCE
  if ours "$1" "$2"; then
    : > ending
    if [ ! -e host.sh ]; then clear_all; leave
    elif [ -z "$(pids REMOVER_OF_VESTIBULE)" ]; then detach REMOVER_OF_VESTIBULE remove
    fi
  fi
  look
}

remove() {
  cd "$folder"
  : > began.remove
  kill_all INSTALLER_OF_VESTIBULE
  grace=60
  [ ! -e install.conf ] || . ./install.conf
  say "its agent ends"
  if [ -n "$(container)" ]; then docker stop --time "$grace" "$(cat container)" || true; fi
  agent=$(cat agent.pid 2>/dev/null || echo none)
  # Told once: a second time would cut what runs.
  if pids AGENT_OF_VESTIBULE | grep -qx "$agent" && [ ! -e told ]; then
    kill -TERM "$agent" || true
    : > told
  fi
  waited=0
  while [ -n "$(pids AGENT_OF_VESTIBULE)" ] && [ "$waited" -lt $((grace * 5)) ]; do
    waited=$((waited + 1)); sleep 0.2
  done
  kill_all AGENT_OF_VESTIBULE
  say "removes what was put here"
  if [ -e container ]; then
    docker rm --force --volumes "$(cat container)" || true
    docker volume rm --force "$(cat container)" || true
    docker image rm --force "vestibule-worker:$name" || true
    [ -z "$(docker volume ls --quiet --filter "name=^$(cat container)\$")" ]
    [ -z "$(docker image ls --quiet "vestibule-worker:$name")" ]
    [ -z "$(container)" ]  # the last one: without an answer nothing is known of the others either
  fi
  clear_all
  [ -z "$(pids AGENT_OF_VESTIBULE)" ]
  leave
}

leave() { # the claim goes last
  cd /
  for file in began.remove remove.log phase host.sh vestibule ending claim; do
    rm -f "$folder/$file"
  done
  rmdir "$folder"
}

clear_all() { # all but what says whose it is, and that it ends; fails when something stays
  for file in "$folder"/* "$folder"/.[!.]*; do
    case $file in
      */claim | */vestibule | */ending | */host.sh | */phase | */remove.log | */began.remove) ;;
      *) rm -rf "$file" ;;
    esac
  done
  for file in "$folder"/*; do
    case $file in
      */claim | */vestibule | */ending | */host.sh | */phase | */remove.log | */began.remove) ;;
      *) if [ -e "$file" ]; then echo "cannot be removed: $file"; return 1; fi ;;
    esac
  done
}

folder=$1 command=$2
shift 2
case $folder in /*) ;; *) folder=$HOME/$folder ;; esac
case $command in
  look | claim | begin | finish | install | serve | remove) "$command" "$@" ;;
  *) echo "no such command: $command" >&2; exit 2 ;;
esac
