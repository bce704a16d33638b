# A VPC with public and private subnets in each zone, or one you have. Only the load balancer has a
# public address.

locals {
  has_vpc      = var.vpc_id != ""
  zones        = local.has_vpc ? [] : slice(data.aws_availability_zones.available.names, 0, var.zones)
  vpc_id       = local.has_vpc ? var.vpc_id : aws_vpc.main[0].id
  nats         = local.has_vpc ? 0 : (var.nat_per_zone ? var.zones : 1)
  private_ids  = local.has_vpc ? var.private_subnet_ids : aws_subnet.private[*].id
  public_ids   = local.has_vpc ? var.public_subnet_ids : aws_subnet.public[*].id
  entrance_ids = var.is_public ? local.public_ids : local.private_ids

  private_cidrs  = local.has_vpc ? values(data.aws_subnet.private)[*].cidr_block : aws_subnet.private[*].cidr_block
  public_cidrs   = local.has_vpc ? values(data.aws_subnet.public)[*].cidr_block : aws_subnet.public[*].cidr_block
  entrance_cidrs = var.is_public ? local.public_cidrs : local.private_cidrs
}

data "aws_subnet" "private" {
  for_each = toset(var.private_subnet_ids)
  id       = each.value
}

data "aws_subnet" "public" {
  for_each = toset(var.public_subnet_ids)
  id       = each.value
}

resource "aws_vpc" "main" {
  count                = local.has_vpc ? 0 : 1
  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true # endpoints answer by the services' own names
  tags                 = { Name = var.name }
}

# What belongs to no group of ours is let nowhere.
resource "aws_default_security_group" "none" {
  count  = local.has_vpc ? 0 : 1
  vpc_id = aws_vpc.main[0].id
}

resource "aws_internet_gateway" "main" {
  count  = local.has_vpc ? 0 : 1
  vpc_id = aws_vpc.main[0].id
  tags   = { Name = var.name }
}

resource "aws_subnet" "public" {
  count             = length(local.zones)
  vpc_id            = aws_vpc.main[0].id
  availability_zone = local.zones[count.index]
  cidr_block        = cidrsubnet(var.cidr, 4, count.index)
  tags              = { Name = "${var.name}-public-${local.zones[count.index]}" }
}

resource "aws_subnet" "private" {
  count             = length(local.zones)
  vpc_id            = aws_vpc.main[0].id
  availability_zone = local.zones[count.index]
  cidr_block        = cidrsubnet(var.cidr, 4, count.index + 4)
  tags              = { Name = "${var.name}-private-${local.zones[count.index]}" }
}

resource "aws_eip" "nat" {
  count  = local.nats
  domain = "vpc"
  tags   = { Name = "${var.name}-nat-${count.index}" }
}

resource "aws_nat_gateway" "main" {
  count         = local.nats
  allocation_id = aws_eip.nat[count.index].id
  subnet_id     = aws_subnet.public[count.index].id
  tags          = { Name = "${var.name}-${count.index}" }
  depends_on    = [aws_internet_gateway.main]
}

resource "aws_route_table" "public" {
  count  = local.has_vpc ? 0 : 1
  vpc_id = aws_vpc.main[0].id
  tags   = { Name = "${var.name}-public" }
}

resource "aws_route" "public" {
  count                  = local.has_vpc ? 0 : 1
  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.main[0].id
}

resource "aws_route_table_association" "public" {
  count          = length(local.zones)
  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_route_table" "private" {
  count  = length(local.zones)
  vpc_id = aws_vpc.main[0].id
  tags   = { Name = "${var.name}-private-${local.zones[count.index]}" }
}

resource "aws_route" "private" {
  count                  = length(local.zones)
  route_table_id         = aws_route_table.private[count.index].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.main[var.nat_per_zone ? count.index : 0].id
}

resource "aws_route_table_association" "private" {
  count          = length(local.zones)
  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private[count.index].id
}

# Free, and spares NAT the models' weights and the images' layers, which lie in S3.
resource "aws_vpc_endpoint" "s3" {
  count             = local.has_vpc ? 0 : 1
  vpc_id            = aws_vpc.main[0].id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = aws_route_table.private[*].id
  tags              = { Name = "${var.name}-s3" }
}

resource "aws_vpc_endpoint" "interface" {
  for_each            = local.has_vpc ? [] : var.interface_endpoints
  vpc_id              = aws_vpc.main[0].id
  service_name        = "com.amazonaws.${var.region}.${each.value}"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = aws_subnet.private[*].id
  security_group_ids  = [aws_security_group.endpoints[0].id]
  private_dns_enabled = true
  tags                = { Name = "${var.name}-${each.value}" }
}
