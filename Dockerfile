# Node runs the TypeScript sources as they are: there is no build step. >= 24.22.2 for the fixed Brotli decoder.
FROM node:24.22.2-bookworm-slim

ENV NODE_ENV=production SLUICE_DATA_DIR=/data
WORKDIR /opt/sluice

COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --ignore-scripts && npm cache clean --force
COPY bin ./bin
COPY config ./config
COPY src ./src

RUN mkdir /data && chown node:node /data
USER node
VOLUME /data
# 1883 MQTT; 8080 (health, metrics) stays inside the container, on its loopback.
EXPOSE 1883
# Not /readyz: a gateway whose journal is full goes on by itself, and a restart would not help it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.SLUICE_HTTP_PORT || 8080}/livez`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
STOPSIGNAL SIGTERM
# Without credentials the gateway listens on loopback only: mount a configuration with `credentials` to publish port 1883.
ENTRYPOINT ["node", "bin/sluice.js"]
CMD ["start"]
