# syntax=docker/dockerfile:1
# The package with its CUDA kernels, in two stages: the compiler stays behind.
#   docker build -t gcl_fast .
#   docker run --rm --gpus all --shm-size 8g -v /data/reid:/data -v $PWD/runs:/home/user/runs \
#       gcl_fast train --dataset market1501 --root /data
# Who runs it has the number 1000, as the first user of most machines; another one: --build-arg UID=$(id -u). Downloaded weights go to
# /home/user/.cache, which a further -v keeps. `--compile` needs a compiler, which is not in here.
# Linted by hadolint; packages are not pinned, since the base image and pyproject.toml say which versions fit.
ARG CUDA=13.0.1
ARG UBUNTU=24.04
ARG UID=1000

FROM nvidia/cuda:${CUDA}-devel-ubuntu${UBUNTU} AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# hadolint ignore=DL3013
RUN pip install --no-cache-dir "setuptools>=64" wheel "cmake>=3.22" ninja numpy torch torchvision
WORKDIR /src
COPY setup.py pyproject.toml CMakeLists.txt MANIFEST.in README.md LICENSE ./
COPY csrc csrc
COPY gcl_fast gcl_fast
COPY configs configs
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --no-build-isolation ".[train,dali,backbones,metrics,export]"

FROM nvidia/cuda:${CUDA}-runtime-ubuntu${UBUNTU}
ARG UID
# The base has a user of its own with the number 1000.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends python3 libgomp1 && rm -rf /var/lib/apt/lists/* \
    && { userdel --remove ubuntu 2>/dev/null || true; } \
    && useradd --create-home --uid "$UID" user
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
USER ${UID}
WORKDIR /home/user
ENTRYPOINT ["gcl-fast"]
CMD ["doctor"]
