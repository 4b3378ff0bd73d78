# The image of Dockerfile.scratch, for whoever has docker and nothing else: the binary is built in a container.
#
#   docker build -t kube-issuer-gateway .
#
# It is for the architecture that the builder has, or is told by --platform (linux/amd64, linux/arm64); another than the machine's own is
# built under emulation, which takes many times as long.
ARG RUST=1.92
FROM rust:${RUST}-alpine AS build
# make static, and .ci/tool below it, are written for bash. gcc and make compile the cryptography.
RUN apk add --no-cache bash gcc make musl-dev
WORKDIR /src
COPY . .
RUN arch="$(uname -m)" && make static ARCH="$arch" && cp "target/$arch-unknown-linux-musl/release/kube-issuer-gateway" /kube-issuer-gateway

FROM scratch

COPY --from=build /kube-issuer-gateway /kube-issuer-gateway

# `nobody`, by number: the kubelet checks runAsNonRoot against a number only, and there is no /etc/passwd here.
USER 65534:65534

# The documents, and the probes.
EXPOSE 8080 8081

ENTRYPOINT ["/kube-issuer-gateway"]

ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="kube-issuer-gateway" \
      org.opencontainers.image.description="Serves a Kubernetes cluster's OIDC discovery document and JWKS to those outside" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
