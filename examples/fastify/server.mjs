// fastify with a certificate that follows a directory, and with HTTP/2.
//   TLS_DIR=/tls PORT=8443 node server.mjs
import { tlsContext } from 'certferry/client'
import Fastify from 'fastify'

const { TLS_DIR, PORT } = process.env
if (!TLS_DIR || !PORT) throw new Error('set TLS_DIR and PORT')

// In a pod this may start before certferry has written the first set.
const tls = await tlsContext({ directory: TLS_DIR, waitMs: 30_000 })

const app = Fastify({ http2: true, https: { ...tls.serverOptions(), allowHTTP1: true } })
tls.attach(app.server)
tls.on('change', ({ certificate }) => app.log.info({ serial: certificate.serialNumber }, 'took a certificate'))
tls.on('error', (error) => app.log.error(error, 'keeps the old certificate'))
app.addHook('onClose', async () => tls.close())

app.get('/', async () => ({ hello: 'from fastify' }))

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => app.close())

console.log(await app.listen({ port: Number(PORT), host: '127.0.0.1' }))
