package main

import (
	"errors"
	"fmt"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/pin"
)

func (a *app) tag() *cobra.Command {
	return &cobra.Command{
		Use:   "tag REF TAG...",
		Short: "Point more tags at an image",
		Long: `Point more tags of the same repository at an image. REF is REPO[:TAG][@DIGEST] in the layout, or in a
remote registry where it begins with a host. A TAG that exists is moved. No blob is copied, and the
digest stays. An image of Docker's schema 1 has its tag in it, and can get no other.`,
		Example: `  berth tag app/hello:v1 stable latest
  berth tag registry.example.com/app/hello@sha256:… v1.0`,
		Args: arguments(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.reading(cmd.Context(), args[:1], func(images *sdk.Images) error {
				desc, err := images.Tag(cmd.Context(), args[0], args[1:]...)
				if err != nil {
					return err
				}
				lines := []string{}
				for _, tag := range args[1:] {
					lines = append(lines, fmt.Sprintf("%s:%s@%s", repositoryOf(args[0]), tag, desc.Digest))
				}
				return a.print(tagged{desc, args[1:]}, lines)
			})
		},
	}
}

// tagged is what berth tag has done, as data.
type tagged struct {
	Descriptor v1.Descriptor `json:"descriptor"`
	Tags       []string      `json:"tags"`
}

// repositoryOf is a reference without tag and digest.
func repositoryOf(ref string) string {
	host, rest := pin.SplitHost(ref)
	repository := rest[:strings.IndexAny(rest+":", ":@")]
	if host == "" {
		return repository
	}
	return host + "/" + repository
}

func (a *app) rm() *cobra.Command {
	return &cobra.Command{
		Use:   "rm REF...",
		Short: "Remove tags and images",
		Long: `Remove tags and images: in the layout, or in a remote registry where REF begins with a host. REF is one of

  REPO:TAG          the tag alone; the image stays
  REPO@DIGEST       the image, and every tag on it
  REPO:TAG@DIGEST   the tag alone, if it is on that image

What could be removed is printed though something else could not. In the layout, the bytes go with a later
berth gc.`,
		Example: `  berth rm app/hello:v1
  berth rm app/hello@sha256:…`,
		Args: arguments(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.reading(cmd.Context(), args, func(images *sdk.Images) error {
				removed, err := images.Remove(cmd.Context(), args...)
				return errors.Join(err, a.print(append([]string{}, removed...), removed))
			})
		},
	}
}

func (a *app) referrers() *cobra.Command {
	var artifactType string
	cmd := &cobra.Command{
		Use:   "referrers REF",
		Short: "List the signatures and other artifacts of an image",
		Long: `List the manifests that have an image as their subject: signatures, attestations, and whatever else
refers to it. REF is REPO[:TAG][@DIGEST] in the layout, or in a remote registry where it begins with
a host. An image that is named by its digest need not be there.`,
		Example: `  berth referrers app/hello:v1
  berth referrers app/hello:v1 --type application/vnd.cncf.notary.signature`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.reading(cmd.Context(), args, func(images *sdk.Images) error {
				all, lines := []v1.Descriptor{}, []string{}
				for desc, err := range images.Referrers(cmd.Context(), args[0], artifactType) {
					if err != nil {
						return err
					}
					all = append(all, desc)
					lines = append(lines, printable(columns(string(desc.Digest), desc.ArtifactType)))
				}
				return a.print(all, lines)
			})
		},
	}
	cmd.Flags().Var((*textValue)(&artifactType), "type", "only those of this artifact `TYPE`")
	return cmd
}
