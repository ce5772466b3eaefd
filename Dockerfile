# docker build -t nemo_duplex . && docker run --rm -v "$PWD/runs:/nemo_duplex/runs" nemo_duplex
FROM python:3.11-slim

# make, and the compilers for two packages of NeMo's that come as source; audio libraries come inside their wheels
RUN apt-get update && apt-get install -y --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*

# the CPU build of torch; leave this out for the one with CUDA
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu PIP_NO_CACHE_DIR=1

WORKDIR /nemo_duplex
COPY . .
RUN make install
CMD ["make", "demo"]
