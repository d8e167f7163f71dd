# masklet from its wheel.
#   docker build -t masklet .                              # CPU
#   docker build -t masklet --build-arg TORCH=cu130 .      # CUDA: torch's wheels bring all of it but the driver
#   docker run --init --rm --user $(id -u) -v $PWD:/work masklet run clip.mp4 -o out
#   docker run --init --rm --gpus all ... masklet run *.mp4 -o out
# Arguments: PYTHON; TORCH, one of the folders of https://download.pytorch.org/whl; EXTRAS, such as [ray].
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
RUN pip install --no-cache-dir "hatchling>=1.27"
COPY pyproject.toml README.md LICENSE ./
COPY packaging/long_description.py packaging/
COPY src src
RUN python -m hatchling build -t wheel -d /wheel

FROM python:${PYTHON}-slim
ARG TORCH=cpu
ARG EXTRAS=
COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir -c /tmp/constraints.txt --index-url "https://download.pytorch.org/whl/${TORCH}" torch
COPY --from=wheel /wheel /tmp/wheel
RUN pip install --no-cache-dir -c /tmp/constraints.txt "$(echo /tmp/wheel/*.whl)${EXTRAS}" && rm -r /tmp/wheel
# Whoever runs it has a place for caches; weights that were fetched are mounted at /weights.
ENV HOME=/tmp MASKLET_WEIGHTS=/weights
WORKDIR /work
ENTRYPOINT ["masklet"]
