# The image holds Node, the libraries it links to, and certferry: no shell, no package manager, nobody but uid 65532.
#
# Pin the base for a release; a tag can change, a digest cannot:
#   docker buildx imagetools inspect node:24.21.0-bookworm     # prints the digest
#   docker build --build-arg NODE_IMAGE=node:24.21.0-bookworm@sha256:… -t certferry .
# Only the build stage uses it, so its size does not matter; it has the `strip` that -slim lacks.
ARG NODE_IMAGE=node:24.21.0-bookworm
# What the final stage starts from; another one must bring nothing that shadows /usr/local/bin/node or its libraries.
ARG BASE_IMAGE=scratch

FROM ${NODE_IMAGE} AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
COPY tools/node/package.json tools/node/
# Without the workspace that pins Node for a clone: this stage has the same Node.
RUN npm ci --ignore-scripts --no-audit --no-fund --workspaces=false
COPY tsconfig.json ./
COPY tools tools
COPY src src
RUN node tools/build.ts && node tools/sbom.ts --output sbom.cdx.json
COPY LICENSE ./
RUN tools/image/rootfs.sh /rootfs
# Node keeps compiled code per user, version and path, so the final user fills the cache, at the final path.
RUN mkdir -p /app && cp -r /rootfs/app/dist /app/dist && install -d -o 65532 -g 65532 /app/compile-cache
USER 65532:65532
RUN NODE_COMPILE_CACHE=/app/compile-cache tools/image/warm.sh /app/dist/cli.cjs
# It belongs to root then: what certferry runs, certferry cannot change.
USER root
RUN chown -R root:root /app/compile-cache && chmod -R a+rX,go-w /app/compile-cache

FROM ${BASE_IMAGE}
COPY --from=build /rootfs /
COPY --from=build /app/compile-cache /app/compile-cache
# One malloc arena, a small young generation, and WebAssembly (the parser of HTTP) that is compiled once and not optimised: half the
# memory, no slower here, where little happens at a time. Without its memory reducer V8 lets an idle process sleep (docs/performance.md).
ENV MALLOC_ARENA_MAX=1 NODE_COMPILE_CACHE=/app/compile-cache
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/node", "--max-semi-space-size=1", "--liftoff-only", "--no-memory-reducer", "/app/dist/cli.cjs"]
CMD ["run", "-c", "/etc/certferry/config.yaml"]
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
  CMD ["/usr/local/bin/node", "--max-semi-space-size=1", "--liftoff-only", "--no-memory-reducer", "/app/dist/cli.cjs", "wait", "--timeout", "2s", "-c", "/etc/certferry/config.yaml"]
LABEL org.opencontainers.image.title="certferry" \
  org.opencontainers.image.description="Vault-backed certificate and secrets sidecar" \
  org.opencontainers.image.licenses="Apache-2.0"
