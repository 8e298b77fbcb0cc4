import { unlessAborted } from '../../base/abort.ts';
import { parseDigest } from '../../base/digest.ts';
import { OpError, quote } from '../../base/errors.ts';
import type { GcRuns } from '../../gc/collectible.ts';
import type { ImageStore } from '../../images/image.ts';
import { imageFromWire, imageToWire } from '../convert/images.ts';
import { containerd, google } from '../gen/wire.js';
import { unary } from '../service.ts';
import type { Service } from '../service.ts';

const v1 = containerd.services.images.v1;

export function imagesService(images: ImageStore, gc: GcRuns): Service {
  return {
    name: 'containerd.services.images.v1.Images',
    methods: {
      Get: unary(v1.GetImageRequest, v1.GetImageResponse, async (ctx, { name }) => ({
        image: imageToWire(await images.get(ctx, name)),
      })),
      List: unary(v1.ListImagesRequest, v1.ListImagesResponse, async (ctx, { filters }) => ({
        images: (await images.list(ctx, filters)).map(imageToWire),
      })),
      Create: unary(v1.CreateImageRequest, v1.CreateImageResponse, async (ctx, { image }) => {
        const { name, labels, target } = imageFromWire(image);
        if (target === undefined) {
          throw new OpError('InvalidArgument', `image ${quote(name)} has no target`);
        }
        return { image: imageToWire(await images.create(ctx, { name, labels, target })) };
      }),
      Update: unary(
        v1.UpdateImageRequest,
        v1.UpdateImageResponse,
        async (ctx, { image, updateMask }) => ({
          image: imageToWire(
            await images.update(ctx, imageFromWire(image), updateMask?.paths ?? []),
          ),
        }),
      ),
      Delete: unary(v1.DeleteImageRequest, google.protobuf.Empty, async (ctx, request) => {
        const digest = request.target?.digest ?? '';
        await images.delete(ctx, request.name, digest === '' ? undefined : parseDigest(digest));
        if (request.sync) await unlessAborted(ctx.signal, gc.collect());
        return {};
      }),
    },
  };
}
