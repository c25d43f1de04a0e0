// Makes a container in Azurite, once that answers: node azure.js ADDRESS CONTAINER
const { BlobServiceClient, StorageSharedKeyCredential } = require("@azure/storage-blob");

// The account that every Azurite has; its key is public.
const account = "devstoreaccount1";
const key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const [address, container] = process.argv.slice(2);

async function main() {
  const service = new BlobServiceClient(`${address}/${account}`, new StorageSharedKeyCredential(account, key), {
    retryOptions: { maxTries: 100, retryDelayInMs: 100, maxRetryDelayInMs: 100 },
  });
  await service.createContainer(container);
}

main().catch((e) => {
  console.error(e.message);
  process.exit(1);
});
