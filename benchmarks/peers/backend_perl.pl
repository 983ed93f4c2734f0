# The small backend whose start-up is measured, with Net::Remctl::Backend.

use strict;
use warnings;
use Net::Remctl::Backend;

my %quotas = (alice => 10, bob => 20);

sub show {
    my ($user) = @_;
    die "quota show: no such user: $user\n" if !exists($quotas{$user});
    print "$user: $quotas{$user} GB\n";
    return 0;
}

sub set_quota {
    my ($user, $size) = @_;
    die "quota set: not allowed\n" if $ENV{REMOTE_USER} !~ m{ \@REMCTL[.]TEST \z }xms;
    $quotas{$user} = $size;
    return 0;
}

my %commands = (
    show => {
        code     => \&show,
        args_min => 1,
        args_max => 1,
        syntax   => '<user>',
        summary  => "Show a user's quota",
    },
    set => {
        code       => \&set_quota,
        args_min   => 2,
        args_max   => 2,
        args_match => [undef, qr{ \A \d+ \z }xms],
        syntax     => '<user> <size>',
        summary    => "Set a user's quota",
    },
);
my $backend = Net::Remctl::Backend->new({ command => 'quota', commands => \%commands });
exit $backend->run();
