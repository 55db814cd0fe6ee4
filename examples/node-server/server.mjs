// An HTTPS server in plain Node that takes a new certificate on SIGHUP. Open connections live on; new ones get the new certificate.
//   TLS_DIR=/tls PORT=8443 PID_FILE=/run/server.pid node server.mjs
import { readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { dirname, join } from 'node:path'

const { TLS_DIR, PORT, PID_FILE } = process.env
if (!TLS_DIR || !PORT || !PID_FILE) throw new Error('set TLS_DIR, PORT and PID_FILE')

/** Certificate and key of one set: the link is followed once, so that a swap between two reads cannot mix two sets. */
function readPair() {
  const set = dirname(realpathSync(join(TLS_DIR, 'tls.crt')))
  return { cert: readFileSync(join(set, 'tls.crt')), key: readFileSync(join(set, 'tls.key')) }
}

const server = createServer({ ...readPair(), minVersion: 'TLSv1.2' }, (_request, response) => {
  response.end('hello from Node\n')
})

process.on('SIGHUP', () => {
  try {
    server.setSecureContext({ ...readPair(), minVersion: 'TLSv1.2' })
    console.log('took the new certificate')
  } catch (error) {
    // Throws before anything is changed: what was served is served on.
    console.error(`keeps the old certificate: ${error.message}`)
  }
})

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    rmSync(PID_FILE, { force: true })
    server.close()
    server.closeIdleConnections()
  })
}

// The pid file comes last: whoever finds it may send SIGHUP, which would end a process without a handler.
server.listen(Number(PORT), '127.0.0.1', () => {
  writeFileSync(PID_FILE, `${process.pid}\n`)
  console.log(`https://localhost:${server.address().port}`)
})
