// An HTTPS server in plain Node whose certificate follows a directory. Open connections live on; new ones get the new certificate.
//   TLS_DIR=/tls PORT=8443 node server.mjs
import { createServer } from 'node:https'
import { tlsContext } from 'certferry/client'

const { TLS_DIR, PORT } = process.env
if (!TLS_DIR || !PORT) throw new Error('set TLS_DIR and PORT')

const tls = await tlsContext({ directory: TLS_DIR, tls: { minVersion: 'TLSv1.2' } })
const server = tls.attach(
  createServer(tls.serverOptions(), (_request, response) => {
    response.end('hello from Node\n')
  }),
)

tls.on('change', ({ certificate }) => console.log(`took certificate ${certificate.serialNumber}`))
tls.on('error', ({ message }) => console.error(`keeps the old certificate: ${message}`))

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    server.close()
    server.closeIdleConnections()
  })
}

server.listen(Number(PORT), '127.0.0.1', () => {
  console.log(`https://localhost:${server.address().port}`)
})
